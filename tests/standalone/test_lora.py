"""A LoRA on the weights against the same LoRA as a branch beside the layer, which is how it was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lib_hellomeme.errors import CheckpointError
from lib_hellomeme.standalone.checkpoint import StableDiffusion
from lib_hellomeme.standalone.lora import add_lora
from tests.goldens_format import seeded

RANK = 3
LINEAR = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
POINTWISE = "lora_unet_mid_block_attentions_0_proj_in"
CONVOLUTION = "lora_unet_up_blocks_2_resnets_1_conv1"
TEXT = "lora_te_text_model_encoder_layers_1_mlp_fc1"


def layer_of(model: StableDiffusion, name: str) -> Any:
    return {
        LINEAR: model.unet.get_submodule("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"),
        POINTWISE: model.unet.get_submodule("mid_block.attentions.0.proj_in"),
        CONVOLUTION: model.unet.get_submodule("up_blocks.2.resnets.1.conv1"),
        TEXT: model.text_encoder.get_submodule("text_model.encoder.layers.1.mlp.fc1"),
    }[name]


def lora_of(
    layer: nn.Linear | nn.Conv2d, name: str, alpha: float | None = None, mid: bool = False
) -> dict[str, Tensor]:
    outputs, inputs, *kernel = layer.weight.shape
    points = [1] * len(kernel)
    shapes = {"lora_up": (outputs, RANK, *points), "lora_down": (RANK, inputs, *(points if mid else kernel))}
    if mid:
        shapes["lora_mid"] = (RANK, RANK, *kernel)
    tensors = {f"{name}.{part}.weight": seeded(f"{name}/{part}", shape) for part, shape in shapes.items()}
    return tensors if alpha is None else tensors | {f"{name}.alpha": torch.tensor(alpha)}


def branch(layer: nn.Linear | nn.Conv2d, tensors: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """up(mid(down(x)))."""
    up, down, mid = (tensors.get(f"{name}.lora_{part}.weight") for part in ("up", "down", "mid"))
    assert up is not None
    assert down is not None
    if isinstance(layer, nn.Linear):
        return x @ down.T @ up.T
    if mid is None:
        x = nn.functional.conv2d(x, down, padding=layer.padding)
    else:
        x = nn.functional.conv2d(nn.functional.conv2d(x, down), mid, padding=layer.padding)
    return nn.functional.conv2d(x, up)


def saved(folder: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, folder / "style.safetensors")
    return folder / "style.safetensors"


@torch.inference_mode()
@pytest.mark.parametrize(
    ("name", "alpha", "mid"),
    [
        (LINEAR, 1.5, False),
        (LINEAR, None, False),
        (POINTWISE, 3.0, False),
        (CONVOLUTION, 1.0, False),
        (CONVOLUTION, 2.0, True),
        (TEXT, 6.0, False),
    ],
)
def test_the_weights_do_what_the_branch_does(tmp_path, model, name, alpha, mid):
    layer = layer_of(model, name)
    tensors = lora_of(layer, name, alpha, mid)
    x = seeded("x", (2, layer.weight.shape[1], *([6, 5] if layer.weight.ndim == 4 else [])))
    share = 0.7 * (alpha / RANK if alpha is not None else 1.0)
    expected = layer(x) + share * branch(layer, tensors, name, x)
    add_lora(model, saved(tmp_path, tensors), 0.7)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_a_lora_touches_its_layers_alone(tmp_path, model):
    before = {name: tensor.clone() for name, tensor in model.unet.state_dict().items()}
    add_lora(model, saved(tmp_path, lora_of(layer_of(model, LINEAR), LINEAR)), 0.5)
    changed = [name for name, tensor in model.unet.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed == ["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"]


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"lora_unet_nowhere.lora_up.weight": torch.zeros(2, 2)}, "lora_unet_nowhere.lora_up.weight is no part"),
        ({f"{LINEAR}.hada_w1_a": torch.zeros(2, 2)}, "no part of a plain LoRA"),
        ({f"{LINEAR}.lora_up.weight": torch.zeros(32, 2)}, "lacks a half"),
        (
            {f"{LINEAR}.lora_up.weight": torch.zeros(320, 2), f"{LINEAR}.lora_down.weight": torch.zeros(2, 768)},
            "another",
        ),
        ({}, "holds no LoRA"),
    ],
)
def test_what_does_not_fit_is_one_line_and_changes_nothing(tmp_path, model, tensors, words):
    good = lora_of(layer_of(model, CONVOLUTION), CONVOLUTION)
    before = layer_of(model, CONVOLUTION).weight.clone()
    with pytest.raises(CheckpointError) as caught:
        add_lora(model, saved(tmp_path, good | tensors if tensors else {}))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert torch.equal(layer_of(model, CONVOLUTION).weight, before)

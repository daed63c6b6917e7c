"""Checkpoints as users have them: of any width, old names, with more in them than is used, of another kind, damaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lib_hellomeme.checkpoints.load import read_state_dict
from lib_hellomeme.errors import CheckpointError, HelloMemeError, MissingFileError
from lib_hellomeme.standalone.checkpoint import PREDICTION_KEY, StableDiffusion, build_on_meta, load_checkpoint
from lib_hellomeme.standalone.layout import TEXT, UNET, VAE, Structure, tensor_shapes, to_networks
from tests.goldens_format import seeded
from tests.random_weights import NARROW, random_tensor, write_checkpoint
from tests.standalone.test_layout import ldm_vae
from tests.tiny import ldm_unet

Tensors = dict[str, Tensor]
EMPTY_FILE = {f"{UNET}out.2.bias": torch.zeros(4)}


@pytest.fixture(scope="module")
def tensors(weights) -> Tensors:
    return read_state_dict(weights.checkpoint)


def same(one: StableDiffusion, other: StableDiffusion) -> bool:
    networks = ("unet", "vae", "text_encoder")
    states = [(getattr(one, name).state_dict(), getattr(other, name).state_dict()) for name in networks]
    return all(a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in states)


@pytest.mark.parametrize("structure", [Structure(), NARROW, replace(NARROW, unet=(64, 96, 128, 160), text_layers=3)])
def test_the_networks_take_every_tensor(structure):
    shapes = tensor_shapes(structure)
    with torch.device("meta"):
        networks = to_networks({name: torch.empty(shape) for name, shape in shapes.items()})
    model = build_on_meta(structure)
    for network, tensors in zip((model.unet, model.vae, model.text_encoder), networks, strict=True):
        network.load_state_dict(tensors, assign=True)


@torch.inference_mode()
def test_the_unet_computes_what_ldms_does(tensors, model):
    reference = ldm_unet()
    reference.load_state_dict({name.removeprefix(UNET): t for name, t in tensors.items() if name.startswith(UNET)})
    sample, context, timesteps = seeded("x", (2, 4, 16, 8)), seeded("context", (2, 77, 64)), torch.tensor([7.5, 7.5])
    expected = reference(sample, timesteps, context=context)
    got = model.unet(sample, torch.tensor(7.5), encoder_hidden_states=context).sample
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("half", ["Encoder", "Decoder"])
def test_the_vae_computes_what_ldms_does(tensors, model, half):
    reference = ldm_vae(half, width=32).eval()
    prefix = f"{VAE}{half.lower()}."
    reference.load_state_dict({name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)})
    given = seeded("picture", (1, 3, 32, 48)) if half == "Encoder" else seeded("latents", (1, 4, 4, 6))
    got = getattr(model.vae, half.lower())(given)
    torch.testing.assert_close(got, reference(given), atol=1e-4, rtol=1e-3)


def test_a_network_is_ready_for_inference(weights):
    model = load_checkpoint(weights.checkpoint, dtype=torch.bfloat16)
    assert model.unet.dtype == model.text_encoder.dtype == torch.bfloat16
    assert model.vae.dtype == torch.float32
    for network in (model.unet, model.vae, model.text_encoder):
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_what_is_not_used_is_left_alone(tmp_path, tensors, model):
    more = {
        "alphas_cumprod": torch.zeros(1000),
        "model_ema.decay": torch.zeros(()),
        f"{VAE}loss.discriminator.weight": torch.zeros(3),
        f"{TEXT}embeddings.position_ids": torch.arange(77)[None],
    }
    assert same(load_checkpoint(saved(tmp_path, tensors | more)), model)


def test_an_old_files_text_encoder_is_found(tmp_path, tensors, model):
    old = {name.replace(".transformer.text_model.", ".transformer."): tensor for name, tensor in tensors.items()}
    assert not any("text_model" in name for name in old)
    assert same(load_checkpoint(saved(tmp_path, old)), model)


def test_a_torch_file_without_code_is_loaded(tmp_path, tensors, model):
    torch.save({"state_dict": tensors, "global_step": 3}, tmp_path / "a.ckpt")
    assert same(load_checkpoint(tmp_path / "a.ckpt"), model)


def with_prediction(path: Path, tensors: Tensors, said: str | None, yaml: str | None) -> Path:
    save_file(dict(tensors), path, {PREDICTION_KEY: said} if said else None)
    if yaml is not None:
        path.with_suffix(".yaml").write_text(yaml)
    return path


@pytest.mark.parametrize(
    ("said", "yaml", "prediction"),
    [
        (None, None, "epsilon"),
        ("v", None, "v"),
        ("epsilon", None, "epsilon"),
        (None, "model: {params: {parameterization: v}}", "v"),
        (None, "model: {params: {parameterization: eps}}", "epsilon"),
        (None, "model: {params: {channels: 4}}", "epsilon"),
        ("v", "model: {params: {parameterization: eps}}", "v"),
    ],
)
def test_what_the_unet_predicts(tmp_path, tensors, said, yaml, prediction):
    path = with_prediction(tmp_path / "a.safetensors", tensors, said, yaml)
    assert load_checkpoint(path).prediction == prediction


@pytest.mark.parametrize(
    ("said", "yaml", "words"),
    [
        ("sample", None, "'sample'"),
        (None, "model: {params: {parameterization: x0}}", "'x0'"),
        (None, "model: [", "a.yaml"),
        (None, "nothing", "a.yaml"),
    ],
)
def test_an_unknown_prediction_is_refused(tmp_path, tensors, said, yaml, words):
    path = with_prediction(tmp_path / "a.safetensors", tensors, said, yaml)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_seeds_make_files(tmp_path, weights, model):
    assert same(load_checkpoint(write_checkpoint(tmp_path / "same.safetensors")), model)
    assert not same(load_checkpoint(write_checkpoint(tmp_path / "other.safetensors", seed=1)), model)
    assert random_tensor("a.weight", (400, 100)).std() == pytest.approx(0.1, rel=0.02)


def saved(folder: Path, tensors: Tensors) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "changed.safetensors")
    return folder / "changed.safetensors"


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("tensors_of", "words"),
    [
        (lambda t: t | {"conditioner.embedders.0.x": torch.zeros(1)}, "SDXL"),
        (lambda t: t | {"cond_stage_model.model.x": torch.zeros(1)}, "SD2"),
        (lambda t: {f"{UNET}double_blocks.0.x": torch.zeros(1)}, "Flux"),
        (lambda t: t | {f"{UNET}input_blocks.0.0.weight": torch.zeros(32, 9, 3, 3)}, "Inpainting"),
        (lambda t: {name: x for name, x in t.items() if not name.startswith(VAE)}, "holds no VAE"),
        (lambda t: EMPTY_FILE, "no VAE and no text encoder"),
        (lambda t: {"lora_unet_x.alpha": torch.zeros(1)}, "no Stable Diffusion checkpoint"),
        (
            lambda t: t | {f"{UNET}label_emb.0.0.weight": torch.zeros(1)},
            "unknown tensor model.diffusion_model.label_emb",
        ),
        (lambda t: t | {f"{UNET}out.0.bias": torch.zeros(31)}, "(31,) instead of (32,)"),
    ],
)
def test_other_checkpoints_are_refused(tmp_path: Path, tensors: Tensors, tensors_of: Callable, words: str):
    assert words in refusal(saved(tmp_path, tensors_of(tensors)))


@pytest.mark.parametrize(
    "name",
    [
        f"{UNET}middle_block.1.norm.weight",
        f"{UNET}input_blocks.4.0.out_layers.3.weight",  # a width is read off it
        f"{VAE}post_quant_conv.bias",
        f"{TEXT}final_layer_norm.bias",
    ],
)
def test_a_missing_tensor_is_named(tmp_path, tensors, name):
    rest = {other: tensor for other, tensor in tensors.items() if other != name}
    assert f"lacks the tensor {name}" in refusal(saved(tmp_path, rest))


@pytest.mark.parametrize("kept", [0.001, 0.5, 0.999])
def test_half_downloaded(tmp_path, weights, kept):
    content = weights.checkpoint.read_bytes()
    (tmp_path / "half.safetensors").write_bytes(content[: int(len(content) * kept)])
    refusal(tmp_path / "half.safetensors")


def test_no_file(tmp_path):
    with pytest.raises(MissingFileError):
        load_checkpoint(tmp_path / "none.safetensors")
    assert issubclass(MissingFileError, HelloMemeError)

"""A single SD1.5 file, of any width, becomes the networks that draw with it. No hub is asked for configurations."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import yaml
from safetensors import safe_open
from torch import Tensor, nn

from lib_hellomeme.checkpoints.load import read_state_dict
from lib_hellomeme.errors import CheckpointError
from lib_hellomeme.standalone.layout import CHUNK, TEXT, UNET, VAE, VOCABULARY, Structure, tensor_shapes, to_networks

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

# Where old files keep the text encoder, one level higher; the webuis move it too.
OLD_TEXT = "cond_stage_model.transformer."
OLD_TEXT_PARTS = ("embeddings.", "encoder.", "final_layer_norm.")
NO_WEIGHTS = {f"{TEXT}embeddings.position_ids"}
VAE_PARTS = tuple(VAE + part for part in ("encoder.", "decoder.", "quant_conv.", "post_quant_conv."))

Part = Literal["unet", "vae", "text_encoder"]
Prediction = Literal["epsilon", "v"]

PREDICTION_KEY = "modelspec.prediction_type"  # Stability-AI/ModelSpec 1.0.0
LDM_PREDICTIONS: Mapping[str, Prediction] = {"eps": "epsilon", "v": "v"}


@dataclass(frozen=True)
class StableDiffusion:
    """An SD1.5 checkpoint's three networks, ready for inference. The UNet predicts noise or velocities."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    prediction: Prediction = "epsilon"


def load_checkpoint(
    path: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    vae_dtype: torch.dtype = torch.float32,
) -> StableDiffusion:
    """The networks of a .safetensors or tensors-only .ckpt file in LDM layout; widths are read off the tensors.

    `dtype` is the UNet's and the text encoder's. Raises MissingFileError or CheckpointError: no whole file, no SD1.5
    checkpoint, a missing, extra or misshapen tensor.
    """
    model, weights = _read(path)
    for part, tensors in weights.items():
        _fill(model, part, tensors, device, vae_dtype if part == "vae" else dtype)
    return model


@contextmanager
def loaded_part(
    path: str | os.PathLike[str], part: Part, device: torch.device | str, dtype: torch.dtype
) -> Iterator[Any]:
    """One network of such a file, for as long as the context lasts. Raises like load_checkpoint."""
    model, weights = _read(path)
    _fill(model, part, weights.pop(part), device, dtype)
    weights.clear()
    network = getattr(model, part)
    try:
        yield network
    finally:
        network.to("meta")  # its memory is free even where somebody still holds the network


def _read(path: str | os.PathLike[str]) -> tuple[StableDiffusion, dict[Part, dict[str, Tensor]]]:
    """The networks without memory, and the tensors of each."""
    tensors, structure = read_tensors(path)
    unet, vae, text = to_networks(tensors)
    model = replace(build_on_meta(structure), prediction=read_prediction(path))
    return model, {"unet": unet, "vae": vae, "text_encoder": text}


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], Structure]:
    """All tensors of an SD1.5 file that are weights, by today's names of LDM's layout. Raises like load_checkpoint."""
    name = Path(path).name
    tensors = _used_tensors(read_state_dict(path))
    structure = _structure_of(tensors, name)
    _check_tensors(tensors, tensor_shapes(structure), name)
    return tensors, structure


def read_prediction(path: str | os.PathLike[str]) -> Prediction:
    """What this file's UNet predicts: as the file itself says, otherwise as the .yaml beside it does, which A1111 goes
    by, and noise where neither says anything. Raises CheckpointError for what is not known."""
    path, said = Path(path), None
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            said = (file.metadata() or {}).get(PREDICTION_KEY)
    said = said or _parameterization(path.with_suffix(".yaml")) or "eps"
    found = LDM_PREDICTIONS.get(said, said)
    if found == "epsilon" or found == "v":
        return found
    raise CheckpointError(
        f"{path.name}: its UNet predicts {said!r}, and only noise (epsilon) and velocities (v) are known here: choose "
        "another checkpoint"
    )


def _parameterization(config: Path) -> str | None:
    """As LDM's configurations name it; None where there is no such file or it says nothing."""
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else None
        return content["model"]["params"].get("parameterization") if content else None
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        problem = str(error).splitlines()[0]
        raise CheckpointError(
            f"{config.name} is no configuration of a checkpoint ({problem}): mend or remove it"
        ) from error


def build_on_meta(structure: Structure) -> StableDiffusion:
    """The three networks without memory for their tensors."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    unet_config: dict[str, Any] = {
        "in_channels": structure.in_channels,
        "block_out_channels": structure.unet,
        "cross_attention_dim": structure.text_width,
        "attention_head_dim": 8,  # the number of heads, whatever diffusers calls it
    }
    vae_config: dict[str, Any] = {
        "block_out_channels": structure.vae,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
    }
    with torch.device("meta"):
        unet = UNet2DConditionModel(**unet_config)
        vae = AutoencoderKL(**vae_config)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=VOCABULARY,
                hidden_size=structure.text_width,
                intermediate_size=structure.text_feed_forward,
                num_hidden_layers=structure.text_layers,
                num_attention_heads=structure.text_heads,
                max_position_embeddings=CHUNK,
            )
        )
    return StableDiffusion(unet, vae, text_encoder)


def _fill(
    model: StableDiffusion, part: Part, tensors: Mapping[str, Tensor], device: torch.device | str, dtype: torch.dtype
) -> None:
    network: nn.Module = getattr(model, part)
    network.load_state_dict({name: tensor.to(device, dtype) for name, tensor in tensors.items()}, assign=True)
    network.eval().requires_grad_(False)
    if part == "text_encoder":  # a buffer that no file holds
        model.text_encoder.text_model.embeddings.position_ids = torch.arange(CHUNK, device=device)[None]


def _used_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without training state, averaged copies and tables, and under today's names."""
    old = tuple(OLD_TEXT + part for part in OLD_TEXT_PARTS)
    renamed = {
        TEXT + name.removeprefix(OLD_TEXT) if name.startswith(old) else name: tensor for name, tensor in tensors.items()
    }
    prefixes = (UNET, *VAE_PARTS, TEXT, "conditioner.", "cond_stage_model.model.")
    return {name: tensor for name, tensor in renamed.items() if name.startswith(prefixes) and name not in NO_WEIGHTS}


def _structure_of(tensors: Mapping[str, Tensor], file: str) -> Structure:
    """Widths and depths by the tensors' shapes. Raises CheckpointError for what is not SD1.5."""
    _refuse_other_models(tensors, file)

    def axis(name: str, index: int) -> int:
        shape: Sequence[int] = tensors[name].shape if name in tensors else ()
        if index >= len(shape):
            raise CheckpointError(f"{file} lacks the tensor {name}: choose a complete SD1.5 checkpoint")
        return shape[index]

    layers = {name.removeprefix(TEXT).split(".")[2] for name in tensors if name.startswith(f"{TEXT}encoder.layers.")}
    structure = Structure(
        unet=tuple(axis(f"{UNET}input_blocks.{block}.0.out_layers.3.weight", 0) for block in (1, 4, 7, 10)),
        vae=tuple(axis(f"{VAE}encoder.down.{level}.block.0.conv1.weight", 0) for level in range(4)),
        text_width=axis(f"{TEXT}embeddings.token_embedding.weight", 1),
        text_layers=len(layers),
        text_feed_forward=axis(f"{TEXT}encoder.layers.0.mlp.fc1.weight", 0),
        in_channels=axis(f"{UNET}input_blocks.0.0.weight", 1),
    )
    if structure.in_channels != 4:
        raise CheckpointError(
            f"{file}: its UNet takes {structure.in_channels} channels. Inpainting checkpoints are not supported yet: "
            "choose a plain SD1.5 checkpoint."
        )
    if any(width % 32 for width in structure.unet + structure.vae) or structure.text_width % structure.text_heads:
        raise CheckpointError(
            f"{file}: its widths {structure.unet} and {structure.vae} are not those of an SD1.5 network"
        )
    return structure


def _refuse_other_models(tensors: Mapping[str, Tensor], file: str) -> None:
    prefixes = {
        "conditioner.": "an SDXL checkpoint",
        "cond_stage_model.model.": "an SD2 checkpoint",
        f"{UNET}joint_blocks.": "an SD3 checkpoint",
        f"{UNET}double_blocks.": "a Flux checkpoint",
    }
    for prefix, kind in prefixes.items():
        if any(name.startswith(prefix) for name in tensors):
            raise CheckpointError(f"{file} is {kind}; HelloMeme's networks need SD1.5: choose an SD1.5 checkpoint")
    parts = {UNET: "UNet", VAE: "VAE", TEXT: "text encoder"}
    missing = [part for prefix, part in parts.items() if not any(name.startswith(prefix) for name in tensors)]
    if len(missing) == len(parts):
        raise CheckpointError(f"{file} is no Stable Diffusion checkpoint: choose an SD1.5 checkpoint in one file")
    if missing:
        raise CheckpointError(f"{file} holds no {' and no '.join(missing)}: choose a complete SD1.5 checkpoint")


def _check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]], file: str) -> None:
    """Raises CheckpointError naming the first tensor that is not as SD1.5 has it."""
    for name, shape in expected.items():
        if name not in tensors:
            raise CheckpointError(f"{file} lacks the tensor {name}: choose a complete SD1.5 checkpoint")
        if tensors[name].shape != tuple(shape):
            raise CheckpointError(
                f"{file}: the tensor {name} has the shape {tuple(tensors[name].shape)} instead of {tuple(shape)}: "
                "it is no SD1.5 checkpoint"
            )
    for name in tensors:
        if name not in expected:
            raise CheckpointError(f"{file} has an unknown tensor {name}: it is no SD1.5 checkpoint")

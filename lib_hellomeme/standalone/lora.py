"""LoRA files in kohya's naming, added to a checkpoint's weights once, before it draws.

Hu et al. (2021): W + weight * alpha / rank * up @ down. For convolutions `down` has the kernel, and LoCon's `mid` may
stand between (KohakuBlueleaf/LyCORIS).
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from lib_hellomeme.checkpoints.load import read_state_dict
from lib_hellomeme.errors import CheckpointError
from lib_hellomeme.standalone.checkpoint import StableDiffusion

PREFIXES = {"unet": "lora_unet", "text_encoder": "lora_te"}
PARTS = ("lora_up.weight", "lora_down.weight", "lora_mid.weight", "alpha")


@torch.no_grad()
def add_lora(
    model: StableDiffusion,
    path: str | os.PathLike[str],
    weight: float = 1.0,
    parts: Collection[str] = tuple(PREFIXES),
) -> None:
    """Change the weights of these parts (UNet and text encoder) in place. Raises CheckpointError naming what does not
    fit."""
    file = Path(path).name
    layers = _layers(model)
    grouped: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in read_state_dict(path).items():
        name, _, part = key.partition(".")
        if name not in layers or part not in PARTS:
            raise CheckpointError(f"{file}: {key} is no part of a plain LoRA for SD1.5; choose another file")
        grouped[name][part] = tensor.float()
    if not grouped:
        raise CheckpointError(f"{file} holds no LoRA: choose another file")
    chosen = tuple(PREFIXES[part] for part in parts)
    changes = {
        name: _change(tensors, layers[name].weight, f"{file}: {name}")
        for name, tensors in grouped.items()
        if name.startswith(chosen)
    }
    for name, change in changes.items():
        layers[name].weight += (weight * change).to(layers[name].weight)


def _layers(model: StableDiffusion) -> dict[str, nn.Linear | nn.Conv2d]:
    """The layers that a LoRA can change, by kohya's names."""
    return {
        f"{prefix}_{name.replace('.', '_')}": layer
        for part, prefix in PREFIXES.items()
        for name, layer in getattr(model, part).named_modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d))
    }


def _change(parts: dict[str, Tensor], weight: Tensor, place: str) -> Tensor:
    """alpha / rank * up @ down, of the weight's shape."""
    if not {"lora_up.weight", "lora_down.weight"} <= parts.keys():
        raise CheckpointError(f"{place} lacks a half of its LoRA: download it again")
    up, down = parts["lora_up.weight"].flatten(1), parts["lora_down.weight"]  # (out, r), (r, in, ...)
    rank = len(down)
    try:
        if "lora_mid.weight" in parts:
            change = torch.einsum("or,rskl,si->oikl", up, parts["lora_mid.weight"], down.flatten(1))
        else:
            change = up @ down.flatten(1)
        change = change.reshape(weight.shape)
    except RuntimeError as error:
        raise CheckpointError(
            f"{place} does not fit this checkpoint's {tuple(weight.shape)}: it needs another model"
        ) from error
    return change * (float(parts["alpha"]) / rank if "alpha" in parts else 1.0)

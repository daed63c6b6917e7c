"""Checkpoints with seeded random weights in the published formats: for tests, and for a demo without downloads.

What they draw is noise. What they prove is the way from files to a picture.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lib_hellomeme.networks.control import ControlBase, ControlProjection
from lib_hellomeme.networks.reference import ReferenceAdapter
from lib_hellomeme.standalone.layout import Structure, tensor_shapes

NARROW = Structure(
    unet=(32, 64, 128, 128),
    vae=(32, 64, 128, 128),
    text_width=64,
    text_layers=2,
    text_feed_forward=256,
)
NARROW_CONTEXT_WIDTH = 256  # of the control network's expression tokens; published: 2048


def random_tensor(name: str, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """The weight of this name: matrices keep the variance of what goes through, norms are near 1, biases near 0."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
    value = torch.randn(shape, generator=generator)
    if len(shape) >= 2:
        return value / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.1 * value if name.endswith(".weight") else 0.1 * value


def write_checkpoint(
    path: str | os.PathLike[str], structure: Structure = NARROW, seed: int = 0, dtype: torch.dtype = torch.float16
) -> Path:
    """A whole SD1.5 checkpoint of these widths as one safetensors file."""
    shapes = tensor_shapes(structure)
    return _write(Path(path), {name: random_tensor(name, shape, seed) for name, shape in shapes.items()}, dtype)


def write_networks(
    folder: str | os.PathLike[str],
    widths: tuple[int, ...] = NARROW.unet,
    context_width: int = NARROW_CONTEXT_WIDTH,
    seed: int = 0,
    dtype: torch.dtype = torch.float16,
) -> dict[str, Path]:
    """The networks of HelloMeme v5c for a UNet of these widths, by the published names."""
    with torch.device("meta"):
        networks: dict[str, nn.Module] = {
            "hm5c_reference": ReferenceAdapter(widths),
            "hm5_control_base": ControlBase(widths, context_width),
            "hm5c_control_proj": ControlProjection(widths),
        }
    paths = {}
    for name, network in networks.items():
        shapes = {tensor: tuple(value.shape) for tensor, value in network.state_dict().items()}
        tensors = {tensor: random_tensor(f"{name}/{tensor}", shape, seed) for tensor, shape in shapes.items()}
        paths[name] = _write(Path(folder) / f"{name}.safetensors", tensors, dtype)
    return paths


def _write(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path

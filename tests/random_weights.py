"""Checkpoints with seeded random weights in the published formats.

What they draw is noise. What they prove is the way from files to a picture.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lib_hellomeme.checkpoints.catalog import files_of
from lib_hellomeme.networks.control import ControlBase, ControlProjection, ConvolutionProjector, STKCrossAttentionV4
from lib_hellomeme.networks.control_v3 import ControlV3, control_v1, control_v2
from lib_hellomeme.networks.expression import ExpressionKind
from lib_hellomeme.networks.pd_fgc import PdfgcEncoder
from lib_hellomeme.networks.reference import KnittedReference, KnittedReferenceV5, ReferenceAdapter
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
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if name.endswith("running_var"):
        return 1 + 0.1 * value.abs()
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
    generation: str = "v5c",
    expression: ExpressionKind = "arkit",
) -> dict[str, Path]:
    """The networks of a HelloMeme generation for a UNet of these widths, by the published names."""
    paths = {}
    for file in files_of(generation, expression):
        with torch.device("meta"):
            network = random_network(file.layout or "", widths, context_width)
        shapes = {tensor: tuple(value.shape) for tensor, value in network.state_dict().items()}
        tensors = {tensor: random_tensor(f"{file.key}/{tensor}", shape, seed) for tensor, shape in shapes.items()}
        paths[file.key] = _write(Path(folder) / file.local_name, tensors, dtype)
    return paths


def random_network(layout: str, widths: tuple[int, ...], context_width: int) -> nn.Module:
    """A network of this layout (a key of LAYOUTS) for a UNet of these widths."""
    builders: dict[str, Callable[[], nn.Module]] = {
        "hm_reference": lambda: ReferenceAdapter(widths, layer=KnittedReference, up_levels=(1, 2, 3), encoder=True),
        "hm2_reference": lambda: ReferenceAdapter(widths, layer=KnittedReference, up_levels=(1, 2, 3)),
        "hm3_reference": lambda: ReferenceAdapter(widths, layer=KnittedReference),
        "hm5_reference": lambda: ReferenceAdapter(widths, layer=KnittedReferenceV5),
        "hm5b_reference": lambda: ReferenceAdapter(widths),
        "hm_control": lambda: control_v1("arkit", widths),
        "hm_control2": lambda: control_v1("pdfgc", widths),
        "hm2_control": lambda: control_v2("arkit", widths),
        "hm2_control2": lambda: control_v2("pdfgc", widths),
        "hm3_control_mix": lambda: ControlV3(widths),
        "hm_control_base": lambda: ControlBase(widths, context_width, block=STKCrossAttentionV4),
        "hm5_control_base": lambda: ControlBase(widths, context_width),
        "hm4_control_proj": lambda: ControlProjection(widths, projector=ConvolutionProjector),
        "hm5_control_proj": lambda: ControlProjection(widths),
        "pd_fgc_motion": PdfgcEncoder,
    }
    return builders[layout]()


def _write(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        save_file(
            {name: tensor.to(dtype if tensor.is_floating_point() else None) for name, tensor in tensors.items()},
            temporary,
        )
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path

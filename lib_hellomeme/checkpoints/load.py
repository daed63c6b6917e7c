"""From a weight file to a network: read it safely, recognise it by its tensors, load it strictly.

A file's name plays no part. Two generations may share a layout (v5b and v5c: `hm5b_reference`), and then the tensors
cannot tell them apart; catalog.py does it by the file's name or folder.
"""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lib_hellomeme.checkpoints.layouts import LAYOUTS, Layout, Shapes, build_on_meta
from lib_hellomeme.errors import CheckpointError, MissingFileError
from lib_hellomeme.networks.animatediff import with_diffusers_names

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".ckpt", ".pt", ".pth")

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)


def load_network(
    path: str | os.PathLike[str],
    layouts: Collection[str] | None = None,
) -> nn.Module:
    """The network in a weight file, with the tensors as they are stored: `placed` makes one that computes.

    The tensors of a .safetensors file stay mapped from it, so that the system can take their memory back and read them
    again. `layouts` names the layouts that are welcome (keys of LAYOUTS; default: all). Raises MissingFileError or
    CheckpointError: not a weight file, another network, a missing, extra, misshapen or damaged tensor.
    """
    path = Path(path)
    tensors = _with_our_names(read_state_dict(path))
    layout = recognise(_shapes_of(tensors), path.name)
    if layouts is not None and layout.name not in layouts:
        wanted = " or ".join(LAYOUTS[name].title for name in layouts)
        raise CheckpointError(f"{path.name} is a {layout.title}, but a {wanted} is needed here")
    network = build_on_meta(layout, _shapes_of(tensors))
    _check_tensors(tensors, network.state_dict(), path.name, layout)
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False)


def placed(network: M, device: torch.device | str, dtype: torch.dtype) -> M:
    """A network with these weights that computes on `device` in `dtype`. What is given stays as it is: when the copy is
    dropped its memory is free, and the next copy, of another type perhaps, is as exact as the first."""
    # deepcopy takes what it finds here for copies made already.
    copies: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.to(device, dtype), requires_grad=False)
        for parameter in network.parameters()
    }
    for buffer in network.buffers():
        copies[id(buffer)] = buffer.to(device, dtype if buffer.is_floating_point() else buffer.dtype)
    return copy.deepcopy(network, copies)


def recognise(shapes: Shapes, name: str = "the file") -> Layout:
    """The layout with these tensors. One that lacks or adds a few is still recognised; loading then names them.

    Raises CheckpointError where it is none of ours.
    """
    names = frozenset(shapes)

    def likeness(layout: Layout) -> float:
        return len(names & layout.tensor_names) / len(names | layout.tensor_names)

    best = max(LAYOUTS.values(), key=likeness)
    if likeness(best) < 0.5:
        raise CheckpointError(f"{name} is {_what_else(names)}, not a network that HelloMeme uses")
    return best


def identify(path: str | os.PathLike[str]) -> Layout:
    """`recognise` for a file, reading no more of it than that takes. Raises like load_network."""
    path = Path(path)
    _refuse_what_holds_no_weights(path)
    if not _is_safetensors(path):
        return recognise(_shapes_of(_with_our_names(_read_torch(path))), path.name)
    return recognise(_with_our_names(_read_safetensors(path, _header_shapes)), path.name)


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The named tensors of a .safetensors file or of a torch file that holds nothing but tensors, on the CPU.

    Raises MissingFileError where there is no file, and CheckpointError for anything that is not a whole weight file.
    """
    path = Path(path)
    _refuse_what_holds_no_weights(path)
    if _is_safetensors(path):
        return _read_safetensors(path, lambda file: {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    return _read_torch(path)


def _with_our_names(tensors: Mapping[str, T]) -> dict[str, T]:
    """AnimateDiff's two namings are one network, and old files of CLIP hold a constant that newer ones leave out."""
    return {
        name: tensor
        for name, tensor in with_diffusers_names(tensors).items()
        if name != "vision_model.embeddings.position_ids"
    }


def _shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, Sequence[int]]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _header_shapes(file: Any) -> dict[str, Sequence[int]]:
    return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118


def _refuse_what_holds_no_weights(path: Path) -> None:
    if not path.is_file():
        raise MissingFileError(f"there is no weight file {path}")
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip()
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}") from error
    if not start:
        raise CheckpointError(f"{path.name} is empty: download it again")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path.name} is a Git LFS pointer, not the weights: download the file itself")
    if start[:9].lower() in (b"<!doctype", b"<html>") or start[:5].lower() == b"<html":
        raise CheckpointError(f"{path.name} is a web page, not a weight file: download the file itself")


def _is_safetensors(path: Path) -> bool:
    """A safetensors file begins with the length of its header (8 bytes) and then the header, which is JSON."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _read_safetensors(path: Path, read: Callable[[Any], T]) -> T:
    try:
        with safe_open(path, framework="pt") as file:
            return read(file)
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path.name} is damaged or not fully downloaded ({reason}): download it again"
        ) from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path.name} is refused: it is no weight file, or holds code beside its tensors; use a .safetensors file"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{path.name} is damaged or not fully downloaded: download it again") from error
    loaded = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(loaded, dict) or not all(isinstance(tensor, Tensor) for tensor in loaded.values()):
        raise CheckpointError(f"{path.name} is no set of named tensors: download the file from its published source")
    return {str(name).removeprefix("module."): tensor for name, tensor in loaded.items()}


def _check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: str, layout: Layout) -> None:
    """Raises CheckpointError naming the first tensor that is not as the network wants it."""
    file = f"{file} ({layout.title})"
    for name in expected:
        if name not in tensors:
            raise CheckpointError(f"{file} lacks the tensor {name}: download it again")
    for name, tensor in tensors.items():
        if name not in expected:
            raise CheckpointError(f"{file} has an unknown tensor {name}: it is another network")
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{file}: the tensor {name} has the shape {tuple(tensor.shape)}"
                f" instead of {tuple(expected[name].shape)}: it is another network"
            )
        if tensor.is_floating_point() != expected[name].is_floating_point() or tensor.is_complex():
            raise CheckpointError(f"{file}: the tensor {name} holds {tensor.dtype}, which is no weight")
        # 8-bit floats know neither isfinite nor arithmetic.
        if not torch.isfinite(tensor.float() if tensor.element_size() == 1 else tensor).all():
            raise CheckpointError(f"{file}: the tensor {name} holds NaN or infinity: download it again")


_FOREIGN = {
    "model.diffusion_model.": "a whole Stable Diffusion checkpoint",
    "input_blocks.": "a UNet or ControlNet",
    "control_model.": "a ControlNet",
    "controlnet_": "a ControlNet",
    "time_embedding.": "a UNet",
    "lora_": "a LoRA",
    "unet.": "a LoRA",
    "first_stage_model.": "a VAE",
    "encoder.down": "a VAE",
    "text_model.": "a text encoder",
    "ip_adapter.": "an IP-Adapter",
    "string_to_param": "a textual inversion",
}
"""What files in a webui's folders are, by the beginning of a tensor's name."""


def _what_else(names: Collection[str]) -> str:
    for prefix, kind in _FOREIGN.items():
        if any(name.startswith(prefix) for name in names):
            return kind
    return "an unknown network"

"""Every published file: where it is, what it is for, and which files make up a generation.

Repositories and the names of ONNX files are those that the published code asks for. The names of weight files are the
ones that its loader (`from_pretrained`) looks for first; they were not compared with the hub. Sizes are in megabytes:
those of published networks follow from their tensors at two bytes each, the others are about right.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lib_hellomeme.checkpoints.load import WEIGHT_SUFFIXES, identify
from lib_hellomeme.errors import CheckpointError, MissingFileError
from lib_hellomeme.networks.expression import ExpressionKind


@dataclass(frozen=True)
class WeightFile:
    """One file of the hub. `layout` is its key in layouts.LAYOUTS, None for ONNX models, which go by their names."""

    key: str
    repository: str
    file: str
    layout: str | None
    megabytes: int
    licence: str
    purpose: str

    @property
    def local_name(self) -> str:
        """The name under which it is kept in models/hellomeme: the hub's own names are all alike."""
        return self.key + Path(self.file).suffix


_CODE_LICENCE = "MIT (the published code's; the hub page decides)"
_UNSTATED = "not known here; see the hub page"


def _hellomeme(key: str, layout: str, megabytes: int, purpose: str) -> WeightFile:
    file = "diffusion_pytorch_model.safetensors"
    return WeightFile(key, f"songkey/{key}", file, layout, megabytes, _CODE_LICENCE, purpose)


def _animatediff(key: str, file: str, layout: str, megabytes: int) -> WeightFile:
    return WeightFile(key, "guoyww/animatediff", file, layout, megabytes, "Apache-2.0", f"AnimateDiff motion ({key})")


def _face_model(file: str, megabytes: int, purpose: str) -> WeightFile:
    return WeightFile(Path(file).stem, "songkey/hello_group_facemodel", file, None, megabytes, _UNSTATED, purpose)


FILES: dict[str, WeightFile] = {
    file.key: file
    for file in (
        _hellomeme("hm_reference", "hm_reference", 312, "v1: looks of the reference"),
        _hellomeme("hm2_reference", "hm2_reference", 126, "v2: looks of the reference"),
        _hellomeme("hm3_reference", "hm3_reference", 182, "v3: looks of the reference"),
        _hellomeme("hm4_reference", "hm3_reference", 182, "v4: looks of the reference"),
        _hellomeme("hm5_reference", "hm5_reference", 193, "v5: looks of the reference"),
        _hellomeme("hm5b_reference", "hm5b_reference", 554, "v5b: looks of the reference"),
        _hellomeme("hm5c_reference", "hm5b_reference", 554, "v5c: looks of the reference"),
        _hellomeme("hm_control", "hm_control", 149, "v1: pose and ARKit expression"),
        _hellomeme("hm_control2", "hm_control2", 150, "v1: pose and PD-FGC expression"),
        _hellomeme("hm2_control", "hm2_control", 398, "v2: pose and ARKit expression"),
        _hellomeme("hm2_control2", "hm2_control2", 397, "v2: pose and PD-FGC expression"),
        _hellomeme("hm3_control_mix", "hm3_control_mix", 401, "v3: pose and expression"),
        _hellomeme("hm_control_base", "hm_control_base", 470, "v4: pose and expression"),
        _hellomeme("hm4_control_proj", "hm4_control_proj", 123, "v4: control onto SD1.5's widths"),
        _hellomeme("hm5_control_base", "hm5_control_base", 455, "v5, v5b, v5c: pose and expression"),
        _hellomeme("hm5_control_proj", "hm5_control_proj", 215, "v5, v5b: control onto SD1.5's widths"),
        _hellomeme("hm5c_control_proj", "hm5_control_proj", 215, "v5c: control onto SD1.5's widths"),
        _hellomeme("hm3_motion", "hm3_motion", 369, "v3: motion between the first and the last frame"),
        _hellomeme("hm4_motion", "hm3_motion", 369, "v4: motion between the first and the last frame"),
        _hellomeme("hm5_motion", "hm5_motion", 804, "v5, v5b: motion"),
        _hellomeme("hm_animatediff_frame12", "animatediff", 835, "v1: AnimateDiff tuned to 12 frames"),
        _hellomeme("hm2_animatediff_frame12", "animatediff", 835, "v2: AnimateDiff tuned to 12 frames"),
        _hellomeme("hm3_animatediff", "animatediff", 835, "v3: tuned AnimateDiff"),
        _hellomeme("hm4_animatediff", "animatediff", 835, "v4: tuned AnimateDiff"),
        _animatediff("mm_sd_v14", "mm_sd_v14.ckpt", "animatediff", 1670),
        _animatediff("mm_sd_v15", "mm_sd_v15.ckpt", "animatediff", 1670),
        _animatediff("mm_sd_v15_v2", "mm_sd_v15_v2.ckpt", "animatediff_mid", 1820),
        _animatediff("v3_sd15_mm", "v3_sd15_mm.ckpt", "animatediff", 1670),
        WeightFile(
            "pd_fgc_motion",
            "songkey/pd_fgc_motion",
            "diffusion_pytorch_model.safetensors",
            "pd_fgc_motion",
            17,
            _UNSTATED,
            "PD-FGC expression from a face picture",
        ),
        WeightFile(
            "image_encoder",
            "songkey/IP-Adapter",
            "models/image_encoder/model.safetensors",
            "clip_vision",
            2530,
            "Apache-2.0",
            "CLIP embeddings of the face's parts, for ARKit expression",
        ),
        _face_model("hello_3dmm.onnx", 311, "head pose"),
        _face_model("hello_arkit_blendshape.onnx", 9, "ARKit coefficients"),
        _face_model("hello_face_det.onnx", 1, "face boxes"),
        _face_model("hello_face_landmark.onnx", 3, "face landmarks"),
    )
}


@dataclass(frozen=True)
class Generation:
    """Keys of FILES. `control` lists, for each kind of expression, the control network and its projection if any."""

    name: str
    reference: str
    control: dict[ExpressionKind, tuple[str, ...]]
    motion: tuple[str, ...] | None
    """What videos need beside the picture networks; None where nothing was published."""


def _either(*control: str) -> dict[ExpressionKind, tuple[str, ...]]:
    return {"pdfgc": control, "arkit": control}


_V5_CONTROL = _either("hm5_control_base", "hm5_control_proj")

GENERATIONS: dict[str, Generation] = {
    generation.name: generation
    for generation in (
        Generation(
            "v1", "hm_reference", {"pdfgc": ("hm_control2",), "arkit": ("hm_control",)}, ("hm_animatediff_frame12",)
        ),
        Generation(
            "v2", "hm2_reference", {"pdfgc": ("hm2_control2",), "arkit": ("hm2_control",)}, ("hm2_animatediff_frame12",)
        ),
        Generation("v3", "hm3_reference", _either("hm3_control_mix"), ("hm3_animatediff", "hm3_motion")),
        Generation(
            "v4", "hm4_reference", _either("hm_control_base", "hm4_control_proj"), ("hm4_animatediff", "hm4_motion")
        ),
        Generation("v5", "hm5_reference", _V5_CONTROL, ("hm5_motion",)),
        Generation("v5b", "hm5b_reference", _V5_CONTROL, ("hm5_motion",)),
        Generation("v5c", "hm5c_reference", _either("hm5_control_base", "hm5c_control_proj"), None),
    )
}


def files_of(generation: str, expression: ExpressionKind = "pdfgc", video: bool = False) -> tuple[WeightFile, ...]:
    """The networks that a generation (a key of GENERATIONS) runs, with the encoder of the expression that it needs.
    Face extractors are not among them.

    Raises CheckpointError where videos are asked of a generation that has no motion network.
    """
    entry = GENERATIONS[generation]
    if video and entry.motion is None:
        raise CheckpointError(f"HelloMeme {generation} has no motion network: choose another generation for videos")
    encoder = ("pd_fgc_motion",) if expression == "pdfgc" else ()
    keys = (entry.reference, *entry.control[expression], *encoder, *(entry.motion or () if video else ()))
    return tuple(FILES[key] for key in keys)


@dataclass(frozen=True)
class Found:
    """A file on this machine. Not `certain`: its tensors fit several published files and its name is none of theirs."""

    path: Path
    certain: bool


def find(*folders: str | os.PathLike[str]) -> dict[str, Found]:
    """The published files in these folders and below, by key, recognised by their tensors.

    Where several published files share a layout (v5b's and v5c's, v3's and v4's) the key in the file's name or in the
    name of a folder above it decides. A file without such a name stands for each of them that has no better one.
    """
    certain: dict[str, Found] = {}
    possible: dict[str, Found] = {}
    for folder in map(Path, folders):
        for path in sorted(folder.rglob("*")):
            keys, sure = _keys_of(path, folder)
            for key in keys:
                (certain if sure else possible).setdefault(key, Found(path, sure))
    return possible | certain


def need(found: dict[str, Found], files: tuple[WeightFile, ...]) -> dict[str, Path]:
    """The path of each file. Raises MissingFileError naming the first that is not there and where it comes from."""
    for file in files:
        if file.key not in found:
            raise MissingFileError(
                f"the weight file {file.key} ({file.purpose}) is not there: get {file.file}"
                f" from https://huggingface.co/{file.repository} and put it into models/hellomeme as {file.local_name}"
            )
    return {file.key: found[file.key].path for file in files}


def _keys_of(path: Path, folder: Path) -> tuple[list[str], bool]:
    """The published files that this one can be, and whether that is sure."""
    if path.suffix.lower() == ".onnx":
        return [key for key, file in FILES.items() if file.file == path.name], True
    if path.suffix.lower() not in WEIGHT_SUFFIXES or not path.is_file():
        return [], False
    status = path.stat()
    layout = _layout_of(path, status.st_size, status.st_mtime_ns)
    keys = [key for key, file in FILES.items() if layout is not None and file.layout == layout]
    # The name nearest to the file decides; the longest key in it, because hm_control is in hm_control_base too.
    for part in reversed(path.relative_to(folder).parts):
        named = [key for key in FILES if _plain(key) in _plain(part)]
        if named:
            keys = [key for key in keys if key == max(named, key=len)] or keys
            break
    return keys, len(keys) == 1


@lru_cache(maxsize=1024)
def _layout_of(path: Path, size: int, modified: int) -> str | None:
    """The layout of a file, None where it is none of ours; the size and time make a changed file a new question."""
    try:
        return identify(path).name
    except CheckpointError:
        return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())

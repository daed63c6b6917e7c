"""Tracks kept from one run to the next, by what a file holds and by the settings it was read with."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from fractions import Fraction
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from lib_hellomeme.face.extract import FaceBox
from lib_hellomeme.face.extract_video import Missing, track_video
from lib_hellomeme.face.smooth import smooth_track
from lib_hellomeme.face.track import FaceFrame, FaceTrack
from lib_hellomeme.face.which import WhichFace

MAXIMUM_SIZE = 500 * 2**20  # bytes of all entries; those unused for longest go first
MODEL_SUFFIXES = (".onnx", ".task")
PACKAGES = ("av", "insightface", "mediapipe", "onnxruntime", "opencv-python", "opencv-python-headless")
_ARRAYS = [
    entry.name for entry in fields(FaceFrame) if entry.name not in ("time", "width", "height", "found", "anchors")
]


def cache_folder() -> Path:
    """HELLOMEME_CACHE, or the system's folder for what a user's programs can make again."""
    chosen = os.environ.get("HELLOMEME_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "hellomeme" / "tracks"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/hellomeme/tracks"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hellomeme" / "tracks"


def tracked_video(
    path: str | os.PathLike[str],
    which: WhichFace | int = "largest",
    missing: Missing = "interpolate",
    progress: Callable[[int], None] | None = None,
    *,
    smoothing: float = 1.0,
    face_box: FaceBox | None = None,
    reference: np.ndarray | None = None,
    extractor: str = "auto",
    models: Path | None = None,
    folder: Path | None = None,
    again: bool = False,
) -> FaceTrack:
    """`track_video`, then `smooth_track`; what comes out is kept, see `cached_track`. Raises what these raise."""
    settings = {
        "which": which,
        "missing": missing,
        "smoothing": smoothing,
        "face_box": None if face_box is None else list(map(float, face_box)),
        "reference": None if reference is None else hashlib.sha256(np.ascontiguousarray(reference).data).hexdigest(),
        "extractor": extractor,
        "models": _model_files(models),
    }

    def make() -> FaceTrack:
        options: dict[str, Any] = {"face_box": face_box, "reference": reference, "extractor": extractor}
        track = track_video(Path(path), which, missing, progress, models=models, **options)
        return _smoothed(track, smoothing, missing)

    return cached_track(path, settings, make, folder, again)


def _smoothed(track: FaceTrack, strength: float, missing: Missing) -> FaceTrack:
    """Frames that shall be left out hold an assumed head: they neither change nor have a share in the others."""
    if missing != "leave out":
        return smooth_track(track, strength)
    there = tuple(frame for frame in track.frames if frame.found)
    found = iter(smooth_track(replace(track, frames=there), strength).frames if there else ())
    return replace(track, frames=tuple(next(found) if frame.found else frame for frame in track.frames))


def _model_files(models: Path | None) -> list[list[Any]]:
    """All that extractors look for: another file may be a better extractor, or give another result."""
    roots = [Path.home() / ".insightface", *(() if models is None else (models, models.parent / "insightface"))]
    found = sorted({file for root in roots for end in MODEL_SUFFIXES for file in root.rglob(f"*{end}")})
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in found]


def cached_track(
    path: str | os.PathLike[str],
    settings: Mapping[str, Any],
    make: Callable[[], FaceTrack],
    folder: Path | None = None,
    again: bool = False,
) -> FaceTrack:
    """The track that `make` gives for a video or picture, made only once for its content and settings.

    settings: all that changes the result, as JSON knows it; this program's version and its packages' are added. folder:
    by default `cache_folder()`. again: makes it anew. An entry that is damaged is made anew too; where nothing can be
    written, nothing is kept.
    """
    try:
        entry = (folder or cache_folder()) / f"{_key(Path(path), settings)}.npz"
    except OSError:
        return make()  # which says what is wrong with the file
    if not again:
        with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError):
            track = _unpack(_read(entry))
            os.utime(entry)
            return track
    track = make()
    with suppress(OSError):
        _write(track, entry)
        _bound(entry.parent)
    return track


def _key(path: Path, settings: Mapping[str, Any]) -> str:
    content = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            content.update(block)
    described = json.dumps([content.hexdigest(), _program(), dict(settings)], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


@cache
def _program() -> str:
    """Changes with every line that could change a track, so that no one has to remember a number."""
    here = Path(__file__).parent
    state = hashlib.sha256()
    for source in sorted([*here.glob("*"), *(here.parent / "video").glob("*.py")]):
        if source.is_file():
            state.update(source.read_bytes())
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            state.update(f"{package} {metadata.version(package)};".encode())
    return state.hexdigest()


def _read(entry: Path) -> dict[str, np.ndarray]:
    with np.load(entry, allow_pickle=False) as stored:
        return dict(stored)


def _write(track: FaceTrack, entry: Path) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    temporary = entry.with_name(f"{entry.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            np.savez(file, **_pack(track))
        os.replace(temporary, entry)
    finally:
        temporary.unlink(missing_ok=True)


def _bound(folder: Path) -> None:
    entries = sorted(folder.glob("*.npz*"), key=lambda entry: entry.stat().st_mtime)
    size = sum(entry.stat().st_size for entry in entries)
    for entry in entries[:-1]:
        if size <= MAXIMUM_SIZE:
            return
        size -= entry.stat().st_size
        entry.unlink()


def _pack(track: FaceTrack) -> dict[str, Any]:
    """All frames' values of one name in one array; `NAME lengths` holds how much of it is each frame's, -1 for none."""
    frames = track.frames
    anchors = list(dict.fromkeys(name for frame in frames for name in frame.anchors))
    header = {
        "fps": str(track.fps),
        "measured": sorted(track.measured),
        "extractor": track.extractor,
        "warnings": track.warnings,
        "anchors": anchors,
        "times": [str(frame.time) for frame in frames],
        "frames": [[frame.width, frame.height, bool(frame.found)] for frame in frames],
    }
    arrays = {"header": np.frombuffer(json.dumps(header).encode(), np.uint8)}
    for name in _ARRAYS:
        arrays |= _column(name, [getattr(frame, name) for frame in frames])
    for name in anchors:
        arrays |= _column(f"anchor {name}", [frame.anchors.get(name) for frame in frames])
    return arrays


def _column(name: str, values: list[np.ndarray | None]) -> dict[str, np.ndarray]:
    there = [value for value in values if value is not None]
    lengths = np.array([-1 if value is None else len(value) for value in values], np.int64)
    return {f"{name} lengths": lengths, name: np.concatenate(there) if there else np.zeros(0)}


def _unpack(arrays: dict[str, np.ndarray]) -> FaceTrack:
    header = json.loads(arrays["header"].tobytes())
    anchors: list[str] = header["anchors"]
    columns = [_parts(arrays, name) for name in _ARRAYS]
    outlines = [_parts(arrays, f"anchor {name}") for name in anchors]
    frames = []
    for (width, height, found), time in zip(header["frames"], header["times"], strict=True):
        values = {name: next(column) for name, column in zip(_ARRAYS, columns, strict=True)}
        points = {
            name: part for name, outline in zip(anchors, outlines, strict=True) if (part := next(outline)) is not None
        }
        frames.append(_frame(time=Fraction(time), width=width, height=height, found=found, anchors=points, **values))
    measured, warnings = frozenset(header["measured"]), tuple(header["warnings"])
    return FaceTrack(Fraction(header["fps"]), tuple(frames), measured, header["extractor"], warnings)


def _parts(arrays: dict[str, np.ndarray], name: str) -> Iterator[np.ndarray | None]:
    values, start = arrays[name], 0
    values.setflags(write=False)
    for length in arrays[f"{name} lengths"].tolist():
        yield values[start : start + length] if length >= 0 else None
        start += max(length, 0)


def _frame(**values: Any) -> FaceFrame:
    """Without FaceFrame's checks: its values passed them before they were written, and they take most of the time."""
    frame = object.__new__(FaceFrame)
    frame.__dict__.update(values)
    return frame

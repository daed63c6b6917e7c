"""Tracks one after another, whatever their frame rates and picture sizes."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from lib_hellomeme.errors import FaceError
from lib_hellomeme.face.between import ease, interpolate_frames
from lib_hellomeme.face.track import FaceFrame, FaceTrack

EMBEDDINGS = ("pd_fgc", "face_parts")


def join_tracks(tracks: Sequence[FaceTrack], blend: int = 0) -> FaceTrack:
    """Tracks one after another, the last `blend` frames of each melted with the first of the next.

    All take the first one's frame rate and picture size; a smaller or larger picture is scaled and centred, so that the
    head takes the same part of the picture's shorter side. Embeddings stay where all have them. Raises FaceError where
    a track is shorter than the blend.
    """
    first = tracks[0]
    width, height = first.frames[0].width, first.frames[0].height
    embeddings = [name for name in EMBEDDINGS if all(_holds(track, name) for track in tracks)]
    left_out: dict[str, Any] = {name: None for name in EMBEDDINGS if name not in embeddings}
    frames: list[FaceFrame] = []
    for number, track in enumerate(tracks):
        following = [_fitted(frame, width, height) for frame in resample(track, first.fps).frames]
        overlap = blend if number else 0
        if overlap > min(len(frames), len(following)) or overlap < 0:
            raise FaceError(
                f"a blend of {blend} frames does not fit between tracks {number} and {number + 1}; shorten it"
            )
        seam = zip(frames[len(frames) - overlap :], following[:overlap], strict=True)
        shares = [ease((index + 1) / (overlap + 1)) for index in range(overlap)]
        melted = [interpolate_frames(*pair, share) for pair, share in zip(seam, shares, strict=True)]
        frames[len(frames) - overlap :] = [*melted, *following[overlap:]]
    timed = (replace(frame, time=index / first.fps, **left_out) for index, frame in enumerate(frames))
    warnings = dict.fromkeys([*(line for track in tracks for line in track.warnings), *_losses(tracks, embeddings)])
    extractors = dict.fromkeys(track.extractor for track in tracks)
    measured = frozenset[str]().union(*(track.measured for track in tracks))
    return FaceTrack(first.fps, tuple(timed), measured, ", ".join(extractors), tuple(warnings))


def resample(track: FaceTrack, fps: Fraction) -> FaceTrack:
    """The track at another frame rate, interpolated between its frames; the same where it has that rate."""
    if track.fps == fps:
        return track
    times = [frame.time for frame in track.frames]
    frames = []
    for index in range(math.floor((times[-1] - times[0]) * fps) + 1):
        time = times[0] + index / fps
        right = bisect_left(times, time)
        left = max(right - 1, 0)
        share = float((time - times[left]) / (times[right] - times[left])) if right else 0.0
        frames.append(replace(interpolate_frames(track.frames[left], track.frames[right], share), time=time))
    return replace(track, fps=fps, frames=tuple(frames))


def _fitted(frame: FaceFrame, width: int, height: int) -> FaceFrame:
    """The face in a picture of this size, in the same place from its middle, measured by the shorter side."""
    scale = min(width, height) / min(frame.width, frame.height)
    left, top = (width - frame.width * scale) / 2, (height - frame.height * scale) / 2
    return frame.transformed(np.array([[scale, 0.0, left], [0.0, scale, top]]), width, height)


def _holds(track: FaceTrack, embedding: str) -> bool:
    return all(getattr(frame, embedding) is not None for frame in track.frames)


def _losses(tracks: Sequence[FaceTrack], kept: Sequence[str]) -> list[str]:
    """A line for what only some of the tracks have."""
    lines = []
    if any(track.measured != tracks[0].measured for track in tracks):
        lines.append("some coefficients were measured in only some of the joined tracks; in the others they are 0")
    lost = [name for name in EMBEDDINGS if name not in kept and any(_holds(track, name) for track in tracks)]
    if lost:
        lines.append(f"only some of the joined tracks hold {' and '.join(lost)}; they are left out")
    return lines

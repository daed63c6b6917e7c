"""From a video to a FaceTrack: one face followed over all frames, as a stream."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from lib_hellomeme.errors import FaceError
from lib_hellomeme.face.expression import MEASURED
from lib_hellomeme.face.extract import WARN_NO_FACE, assumed_frame
from lib_hellomeme.face.landmarks import FACE_SPAN
from lib_hellomeme.face.mediapipe_solutions import MediaPipeSolutions
from lib_hellomeme.face.mesh import frame_of_mesh
from lib_hellomeme.face.track import FaceFrame, FaceTrack, interpolate_rotation
from lib_hellomeme.video.decode import open_video

WhichFace = Literal["largest", "leftmost", "rightmost"]
Missing = Literal["interpolate", "hold"]

MOST_FACES = 4  # followed at once, so that the chosen one is not mixed up with its neighbours
REACH = 0.7  # face widths that a face may move from one frame to the next
REACH_GAINED = 0.05  # face widths more for each frame in which it was not seen
SEARCH_PAUSE = Fraction(1, 2)  # seconds between thorough searches for a lost face


def track_video(
    path: str | Path,
    which: WhichFace | int = "largest",
    missing: Missing = "interpolate",
    progress: Callable[[int], None] | None = None,
) -> FaceTrack:
    """One face of a video to a track with as many frames as the video.

    which: the face in the first frame that has any, by size or place, or its number from the left, counted from 0;
    from then on the nearest is the same one. missing: frames without the face (found False) take what lies between
    their neighbours, or repeat the last. progress is called with the number of frames done. Raises PictureError for
    files that are no video, FaceError for a number that no face has.
    """
    video, extractor = open_video(path), MediaPipeSolutions()
    frames: list[FaceFrame] = []
    with contextlib.closing(_Follower(extractor, which)) as follower:
        for picture, time in video.frames():
            mesh, (height, width) = follower.find(picture, time), picture.shape[:2]
            found = mesh is not None
            frames.append(frame_of_mesh(mesh, width, height, time) if found else assumed_frame(width, height, time))
            if progress:
                progress(len(frames))
    lost = sum(not frame.found for frame in frames)
    warnings = [*video.warnings, *follower.warnings]
    if 0 < lost < len(frames):
        warnings.append(f"the face was not found in {lost} of {len(frames)} frames; they were filled in ({missing})")
    if lost == len(frames):
        warnings.append(WARN_NO_FACE)
    measured = MEASURED if lost < len(frames) else frozenset()
    return FaceTrack(video.fps, tuple(fill_missing(frames, missing)), measured, extractor.name, tuple(warnings))


class _Follower:
    """Which of the meshes in each frame is the one that was chosen."""

    def __init__(self, extractor: MediaPipeSolutions, which: WhichFace | int) -> None:
        self.extractor, self.which = extractor, which
        self.warnings: list[str] = []
        self._open = contextlib.ExitStack()
        self._meshes = self._open.enter_context(extractor.follow(1))
        self._last: np.ndarray | None = None
        self._unseen, self._searched = 0, Fraction(-1)

    def close(self) -> None:
        self._open.close()

    def find(self, picture: np.ndarray, time: Fraction) -> np.ndarray | None:
        mesh = None if self._last is None else self._nearest(self._meshes(picture))
        if mesh is None and (self._searched < 0 or time - self._searched >= SEARCH_PAUSE):
            self._searched = time
            found = self.extractor.meshes(picture)
            mesh = self._choose(found) if self._last is None else self._nearest(found)
        self._unseen = 0 if mesh is not None else self._unseen + 1
        self._last = self._last if mesh is None else mesh
        return mesh

    def _choose(self, meshes: list[np.ndarray]) -> np.ndarray | None:
        """The first time; how many there are decides how many are followed."""
        if not meshes:
            return None
        if len(meshes) > 1:
            self.close()
            self._meshes = self._open.enter_context(self.extractor.follow(min(len(meshes), MOST_FACES)))
            self.warnings.append(f"{len(meshes)} faces were found; one is followed (choose another by its place)")
        if self.which == "largest":
            return meshes[0]
        from_left = sorted(meshes, key=lambda mesh: float(mesh[:, 0].mean()))
        index = {"leftmost": 0, "rightmost": -1}.get(str(self.which), self.which)
        if not isinstance(index, int) or not -1 <= index < len(meshes):
            raise FaceError(f"there is no face number {self.which}; there are {len(meshes)}, counted from 0")
        return from_left[index]

    def _nearest(self, meshes: list[np.ndarray]) -> np.ndarray | None:
        """The mesh nearest to the last one, within reach and of a similar size."""
        assert self._last is not None
        size = _width(self._last)
        reach = size * (REACH + REACH_GAINED * self._unseen)
        near = [
            (distance, mesh)
            for mesh in meshes
            if (distance := _distance(mesh, self._last)) < reach and 0.5 < _width(mesh) / size < 2.0
        ]
        return min(near, key=lambda pair: pair[0])[1] if near else None


def _width(mesh: np.ndarray) -> float:
    return float(np.ptp(mesh[list(FACE_SPAN), :2], axis=0).max())


def _distance(mesh: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(mesh[:, :2].mean(axis=0) - other[:, :2].mean(axis=0)))


def fill_missing(frames: list[FaceFrame], missing: Missing) -> list[FaceFrame]:
    """Gives frames without a face the head of their neighbours; they stay marked as not found."""
    found = [index for index, frame in enumerate(frames) if frame.found]
    if not found:
        return frames
    filled = list(frames)
    for index, frame in enumerate(frames):
        if frame.found:
            continue
        before = max((i for i in found if i < index), default=None)
        after = min((i for i in found if i > index), default=None)
        left, right = frames[found[0] if before is None else before], frames[found[-1] if after is None else after]
        if before is None or after is None or missing == "hold":
            filled[index] = _like(frame, left if before is not None else right)
        else:
            share = float((frame.time - left.time) / (right.time - left.time))
            filled[index] = _like(frame, _between(left, right, share))
    return filled


def _like(frame: FaceFrame, model: FaceFrame) -> FaceFrame:
    return replace(model, time=frame.time, found=False)


def _between(left: FaceFrame, right: FaceFrame, share: float) -> FaceFrame:
    """The head on its way from left to right, in left's picture."""

    def mix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a + (b - a) * share

    assert left.box is not None
    assert right.box is not None
    return replace(
        left,
        rotation=interpolate_rotation(left.rotation, right.rotation, share),
        translation=mix(left.translation, right.translation),
        coefficients=mix(left.coefficients, right.coefficients),
        box=mix(left.box, right.box),
        anchors={name: mix(points, right.anchors[name]) for name, points in left.anchors.items()},
    )

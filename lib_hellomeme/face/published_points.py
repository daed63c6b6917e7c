"""The 222 landmarks of the published face models: what they are, how they are smoothed from frame to frame.

Rows and numbers: HelloMeme `utils.py`, `tools/hello_camera_demo.py`. Left and right in the published code are those of
the picture; here they are the person's own. The order within brows and eyes is not documented there.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from lib_hellomeme.face.landmarks import PUBLISHED

POINTS = 222
RIGHT_EYE_CORNER, LEFT_EYE_CORNER = 74, 96  # the outer ones
RIGHT_TEMPLE, LEFT_TEMPLE = 0, 32

# By the names of landmarks.ANCHORS, as far as the published code tells them.
ANCHOR_ROWS: dict[str, tuple[int, ...]] = {
    PUBLISHED: tuple(range(POINTS)),
    "jaw": tuple(range(33)),
    "nose": tuple(range(33, 48)),
    "right_brow": tuple(range(48, 61)),
    "left_brow": tuple(range(61, 74)),
    "right_eye": tuple(range(74, 96)),
    "left_eye": tuple(range(96, 118)),
    "mouth_outer": tuple(range(118, 150)),
    "mouth_inner": tuple(range(150, 182)),
    "right_pupil": (182,),
    "left_pupil": (202,),
    "nose_tip": (36,),
    "mouth_corners": (149, 133),
}


class Part(NamedTuple):
    """Landmarks that are smoothed together. Where they move less than `calm` face sizes a frame, hardly anything is let
    through; from `fast` on `most`."""

    rows: slice
    judged: slice  # the rows whose movement decides
    calm: float
    at_calm: float
    most: float
    fast: float = 0.02


PARTS = (
    Part(slice(0, 33), slice(9, 24), 0.005, 0.05, 0.3),  # the jaw
    Part(slice(33, 48), slice(33, 48), 0.003, 0.03, 0.7),
    Part(slice(48, 74), slice(48, 74), 0.003, 0.02, 0.5),
    Part(slice(74, 96), slice(74, 96), 0.003, 0.03, 0.7),
    Part(slice(96, 118), slice(96, 118), 0.003, 0.03, 0.7),
    Part(slice(118, 182), slice(118, 182), 0.003, 0.05, 0.7),
    Part(slice(182, 202), slice(182, 202), 0.003, 0.03, 0.7),
    Part(slice(202, 222), slice(202, 222), 0.003, 0.03, 0.7),
)


class Smoother:
    """Call with each frame's landmarks (222, 2) px in order.

    A one-euro filter for each part, whose step of time and whose gain of speed are one number, which grows with the
    part's movement; the cutoff at rest and that of the speed are 1.
    """

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._speed = np.zeros((POINTS, 2))

    def __call__(self, points: np.ndarray, face_size: float) -> np.ndarray:
        """face_size: px that movements are measured by."""
        if self._last is None:
            self._last = points.copy()
            return points
        moved = np.sqrt(np.square(points - self._last).sum(axis=1)) / face_size
        smoothed = points.copy()
        for part in PARTS:
            movement = float(moved[part.judged].mean())
            step = float(np.interp(movement, [0.0, part.calm, part.fast], [0.0, part.at_calm, part.most]))
            smoothed[part.rows] = self._filtered(points[part.rows], part.rows, step)
        self._last = smoothed
        return smoothed

    def _filtered(self, points: np.ndarray, rows: slice, step: float) -> np.ndarray:
        assert self._last is not None
        last = self._last[rows]
        if step == 0.0:  # nothing moved: the limit, where the published formula divides by zero
            return last
        part = _share(1.0, step)
        speed = part * (points - last) / step + (1 - part) * self._speed[rows]
        self._speed[rows] = speed
        taken = _share(1.0 + step * np.abs(speed), step)
        return taken * points + (1 - taken) * last


def _share(cutoff: float | np.ndarray, step: float) -> float | np.ndarray:
    """The part of a new value that a low-pass filter takes."""
    rate = 2 * math.pi * step * cutoff
    return rate / (rate + 1)


def roll_degrees(points: np.ndarray) -> float:
    """By which the line through the outer eye corners falls to the picture's right."""
    way = points[LEFT_EYE_CORNER] - points[RIGHT_EYE_CORNER]
    return math.degrees(math.atan2(way[1], way[0] + 1e-8))

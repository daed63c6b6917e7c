"""Frames and pictures that the tests of the face room share."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

from lib_hellomeme.face.track import ARKIT_NAMES, FaceFrame
from tests.goldens_format import FOLDER

GEOMETRY: dict[str, Any] = json.loads((FOLDER / "face_geometry_and_windows.json").read_text())

angles = st.tuples(*[st.floats(-0.7, 0.7)] * 3).map(np.array)
translations = st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2), st.floats(-8.0, -3.0)).map(np.array)
sizes = st.tuples(st.integers(64, 2000), st.integers(64, 2000))


def make_frame(
    rotation: Any = (0, 0, 0), translation: Any = (0, 0, -5), width: int = 512, height: int = 512
) -> FaceFrame:
    box = np.array([width * 0.3, height * 0.3, width * 0.6, height * 0.7])
    anchors = {"mouth_corners": np.array([[width * 0.4, height * 0.6], [width * 0.5, height * 0.6]])}
    neutral = np.zeros(len(ARKIT_NAMES))
    values = np.asarray(rotation, np.float64), np.asarray(translation, np.float64), neutral
    return FaceFrame(Fraction(0), width, height, True, *values, box, anchors)


@st.composite
def similarities(draw: st.DrawFn) -> np.ndarray:
    scale, turn = draw(st.floats(0.3, 3.0)), draw(st.floats(-3.0, 3.0))
    x, y = draw(st.floats(-300, 300)), draw(st.floats(-300, 300))
    sine, cosine = np.sin(turn), np.cos(turn)
    return np.array([[scale * cosine, -scale * sine, x], [scale * sine, scale * cosine, y]])


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]

"""The average face in 3D, which heads are fitted to."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np

from lib_hellomeme.face.landmarks import ANCHORS


@functools.cache
def mean_face() -> np.ndarray:
    """(468, 3), one point for each landmark of MediaPipe's mesh, symmetric.

    x points to the picture's right, y up, z to the camera. One unit is the face from temple to temple; the origin is
    the middle of what the published 222 points span, at the points' mean depth. The file names its source.
    """
    data = json.loads(Path(__file__).with_name("mean_face.json").read_text(encoding="utf-8"))
    points = np.array(data["points"])
    points.setflags(write=False)
    return points


@functools.cache
def mean_face_with_irises() -> np.ndarray:
    """(478, 3): `mean_face` with all points of each iris in the middle between its eye's corners."""
    face = mean_face()
    right_outer, right_inner, left_inner, left_outer = face[list(ANCHORS["eye_corners"])]
    irises = [(right_outer + right_inner) / 2] * 5 + [(left_inner + left_outer) / 2] * 5
    points = np.concatenate([face, irises])
    points.setflags(write=False)
    return points

"""ARKit coefficients from the geometry of the landmarks: named distances, each with its values at rest and in full."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .landmarks import ANCHORS
from .pose import fit_face
from .track import ARKIT_INDEX, ARKIT_NAMES


class Measure(NamedTuple):
    """coefficient = (distance - rest) / (full - rest), cut to [0, 1]."""

    name: str
    distance: Callable[[np.ndarray], float]  # of the upright face, whose outer eye corners are 1 apart
    rest: float
    full: float


def expression(mesh: np.ndarray) -> np.ndarray:
    """(478, 3) px landmarks to the 51 coefficients of ARKIT_NAMES in [0, 1]; those not in MEASURED are 0."""
    face = upright_face(mesh)
    coefficients = np.zeros(len(ARKIT_NAMES))
    for measure in MEASURES:
        value = (measure.distance(face) - measure.rest) / (measure.full - measure.rest)
        coefficients[ARKIT_INDEX[measure.name]] = np.clip(value, 0.0, 1.0)
    return coefficients


def upright_face(mesh: np.ndarray) -> np.ndarray:
    """(478, 3) px landmarks to the head's own frame: x to the picture's right, y up, z to the camera, eyes 1 apart."""
    matrix, _, _ = fit_face(mesh)
    points = mesh * [1.0, -1.0, -1.0]
    upright = (points - points[ANCHORS["nose_tip"][0]]) @ matrix.T
    return upright / np.linalg.norm(upright[RIGHT_OUTER] - upright[LEFT_OUTER])


RIGHT_OUTER, RIGHT_INNER, LEFT_INNER, LEFT_OUTER = ANCHORS["eye_corners"]
RIGHT_LIDS = ((160, 144), (159, 145), (158, 153))  # upper and lower lid
LEFT_LIDS = ((387, 373), (386, 374), (385, 380))
UPPER_LIP, LOWER_LIP = 13, 14  # the inner edges
RIGHT_CORNER, LEFT_CORNER = ANCHORS["mouth_corners"]


def _opening(lids: tuple[tuple[int, int], ...], outer: int, inner: int) -> Callable[[np.ndarray], float]:
    def distance(face: np.ndarray) -> float:
        heights = [np.linalg.norm(face[upper] - face[lower]) for upper, lower in lids]
        return float(np.mean(heights) / np.linalg.norm(face[outer] - face[inner]))

    return distance


def _height(points: tuple[int, ...], base: tuple[int, ...]) -> Callable[[np.ndarray], float]:
    """How far the points' mean lies above the base's."""
    return lambda face: float(face[list(points), 1].mean() - face[list(base), 1].mean())


def _gap(first: int, second: int) -> Callable[[np.ndarray], float]:
    return lambda face: float(np.linalg.norm(face[first] - face[second]))


EYES = ANCHORS["eye_corners"]
NOSE_BASE = (2,)

MEASURES: tuple[Measure, ...] = (
    Measure("jawOpen", _gap(UPPER_LIP, LOWER_LIP), 0.02, 0.45),
    Measure("eyeBlinkRight", _opening(RIGHT_LIDS, RIGHT_OUTER, RIGHT_INNER), 0.26, 0.06),
    Measure("eyeBlinkLeft", _opening(LEFT_LIDS, LEFT_OUTER, LEFT_INNER), 0.26, 0.06),
    Measure("mouthSmileRight", _height((RIGHT_CORNER,), NOSE_BASE), -0.30, -0.18),
    Measure("mouthSmileLeft", _height((LEFT_CORNER,), NOSE_BASE), -0.30, -0.18),
    Measure("browInnerUp", _height((107, 336), EYES), 0.17, 0.27),
    Measure("browDownRight", _height((107, 55), EYES), 0.15, 0.08),
    Measure("browDownLeft", _height((336, 285), EYES), 0.15, 0.08),
)
MEASURED: frozenset[str] = frozenset(measure.name for measure in MEASURES)

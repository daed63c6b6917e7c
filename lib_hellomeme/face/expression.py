"""ARKit coefficients from the geometry of the landmarks: named distances, each with its values at rest and in full."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from lib_hellomeme.face.landmarks import ALL_POINTS, ANCHORS
from lib_hellomeme.face.mean_face import mean_face_with_irises
from lib_hellomeme.face.pose import CAMERA_DISTANCE, FaceFit
from lib_hellomeme.face.track import ARKIT_INDEX, ARKIT_NAMES

MOST_REST = 0.3  # between two persons' faces at rest, as renders with geometries of nine show it

Points = Sequence[Sequence[float]]  # x, y and z of each landmark; numbers in lists are read one by one much faster


class Measure(NamedTuple):
    """coefficient = (distance - rest) / (full - rest), cut to [0, 1]."""

    name: str
    distance: Callable[[Points], float]  # of a face as `upright_face` gives it
    rest: float
    full: float


def expression(mesh: np.ndarray, fit: FaceFit) -> np.ndarray:
    """(478, 3) px landmarks to the 51 coefficients of ARKIT_NAMES in [0, 1]; those not in MEASURED are 0, and so are
    those that need a landmark which is not known (NaN)."""
    face = upright_face(mesh, fit).tolist()
    coefficients = np.zeros(len(ARKIT_NAMES))
    for measure in MEASURES:
        value = (measure.distance(face) - measure.rest) / (measure.full - measure.rest)
        coefficients[ARKIT_INDEX[measure.name]] = 0.0 if math.isnan(value) else min(max(value, 0.0), 1.0)
    return coefficients


def from_own_rest(coefficients: np.ndarray) -> np.ndarray:
    """(frames, 51) of one person's video, measured by distances, with less of what that person's shape adds to them.

    What a face does in half of the frames is its rest, but for MOST_REST at most, so that a lasting smile stays one;
    the gaze, which rests nowhere, is left.
    """
    gaze = np.array([name.startswith("eyeLook") for name in ARKIT_NAMES])
    rest = np.where(gaze, 0.0, np.minimum(np.median(coefficients, axis=0), MOST_REST))
    return np.maximum(coefficients - rest, 0.0) / (1.0 - rest)


def measurable(known: Collection[int]) -> frozenset[str]:
    """The coefficients that can be measured where only these landmarks are known."""
    face = np.full((ALL_POINTS, 3), np.nan)
    face[sorted(known)] = 0.5 + np.random.default_rng(0).random((len(known), 3))
    return frozenset(measure.name for measure in MEASURES if not math.isnan(measure.distance(face.tolist())))


def upright_face(mesh: np.ndarray, fit: FaceFit) -> np.ndarray:
    """(478, 3) px landmarks to the average face's frame: x to the picture's right, y up, in widths of the face.

    Only where the landmarks are seen is used; their depth is the fitted average face's, which is steadier than theirs.
    """
    posed = mean_face_with_irises() @ fit.matrix
    seen = (mesh[:, :2] - fit.origin) / fit.width * [1.0, -1.0]
    across = seen * (1.0 - posed[:, 2:] / CAMERA_DISTANCE)  # undoes the perspective
    return np.column_stack([across, posed[:, 2]]) @ fit.matrix.T


class Side(NamedTuple):
    """Landmarks of one side of the face."""

    outward: float  # sign of x
    upper_lid: tuple[int, ...]
    lower_lid: tuple[int, ...]
    crease: tuple[int, ...]
    eye_corners: tuple[int, ...]
    brow: tuple[int, ...]
    brow_middle: tuple[int, ...]
    mouth_corner: tuple[int, ...]
    iris: tuple[int, ...]


RIGHT = Side(
    outward=-1.0,
    upper_lid=(160, 159, 158),
    lower_lid=(144, 145, 153),
    crease=(28, 27, 29),
    eye_corners=(33, 133),
    brow=ANCHORS["right_brow"],
    brow_middle=(105, 52),
    mouth_corner=(61,),
    iris=(468, 469, 470, 471, 472),
)
LEFT = Side(
    outward=1.0,
    upper_lid=(387, 386, 385),
    lower_lid=(373, 374, 380),
    crease=(258, 257, 259),
    eye_corners=(263, 362),
    brow=ANCHORS["left_brow"],
    brow_middle=(334, 282),
    mouth_corner=(291,),
    iris=(473, 474, 475, 476, 477),
)
INNER_BROWS = (107, 66, 55, 65, 336, 296, 285, 295)
UPPER_LIP_MIDDLE = (0,)


def _x(face: Points, points: tuple[int, ...]) -> float:
    return sum(face[point][0] for point in points) / len(points)


def _y(face: Points, points: tuple[int, ...]) -> float:
    return sum(face[point][1] for point in points) / len(points)


def lip_gap(face: Points) -> float:
    return _y(face, (82, 13, 312)) - _y(face, (87, 14, 317))


def eye_opening(side: Side, face: Points) -> float:
    """Between the lids, as a part of the way from the lower lid to the crease: the size of the eye matters less."""
    lower = _y(face, side.lower_lid)
    return (_y(face, side.upper_lid) - lower) / (_y(face, side.crease) - lower)


def corner_lift(side: Side, face: Points) -> float:
    """The mouth's corner above the upper lip's middle, and half of how far it is drawn outward."""
    lift = _y(face, side.mouth_corner) - _y(face, UPPER_LIP_MIDDLE)
    return lift + 0.5 * side.outward * (_x(face, side.mouth_corner) - _x(face, UPPER_LIP_MIDDLE))


def inner_brow_height(face: Points) -> float:
    """Above the middles of the brows, mostly, and above the eyes."""
    middle, eyes = RIGHT.brow_middle + LEFT.brow_middle, ANCHORS["eye_corners"]
    return _y(face, INNER_BROWS) - 0.75 * _y(face, middle) - 0.25 * _y(face, eyes)


def gaze(read: Callable[[Points, tuple[int, ...]], float], face: Points) -> float:
    """The irises' way from the middles between the eyes' corners to the picture's right (_x) or up (_y) in eye widths.

    Of both eyes together, as they turn together: one alone is half as accurate.
    """
    ways = []
    for side in (RIGHT, LEFT):
        outer, inner = side.eye_corners
        ways.append((read(face, side.iris) - read(face, side.eye_corners)) / abs(face[outer][0] - face[inner][0]))
    return sum(ways) / len(ways)


def brow_height(side: Side, face: Points) -> float:
    return _y(face, side.brow) - _y(face, side.eye_corners)


# The two values are least-squares fits to faces rendered with known movement (tests/face/accuracy.py), rounded. Heights
# of the outer brows, frowning and puckered mouths and eyes that look down were tried there and found too inaccurate.
MEASURES: tuple[Measure, ...] = (
    Measure("jawOpen", lip_gap, 0.06, 0.18),
    Measure("eyeBlinkLeft", partial(eye_opening, LEFT), 0.6, 0.35),
    Measure("eyeBlinkRight", partial(eye_opening, RIGHT), 0.6, 0.35),
    Measure("mouthSmileLeft", partial(corner_lift, LEFT), 0.055, 0.14),
    Measure("mouthSmileRight", partial(corner_lift, RIGHT), 0.055, 0.14),
    Measure("browInnerUp", inner_brow_height, 0.025, 0.04),
    Measure("browDownLeft", partial(brow_height, LEFT), 0.129, 0.08),
    Measure("browDownRight", partial(brow_height, RIGHT), 0.129, 0.08),
    Measure("eyeLookOutLeft", partial(gaze, _x), 0.0, 0.14),
    Measure("eyeLookInRight", partial(gaze, _x), 0.0, 0.14),
    Measure("eyeLookInLeft", partial(gaze, _x), 0.0, -0.14),
    Measure("eyeLookOutRight", partial(gaze, _x), 0.0, -0.14),
    Measure("eyeLookUpLeft", partial(gaze, _y), 0.02, 0.14),
    Measure("eyeLookUpRight", partial(gaze, _y), 0.02, 0.14),
)
MEASURED: frozenset[str] = frozenset(measure.name for measure in MEASURES)

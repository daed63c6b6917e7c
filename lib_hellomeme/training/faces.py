"""How the drawn people hold their heads and what their faces do: single states and clips, from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np

from lib_hellomeme.face.camera import head_translation, rotation_matrix
from lib_hellomeme.face.track import ARKIT_INDEX, ARKIT_NAMES, FaceFrame, FaceTrack, interpolate_rotation
from lib_hellomeme.training.head import FACE_WIDTH

MEAN_FACE_WIDTH = 0.5  # of the picture's shorter side
CENTRE = (0.5, 0.54)  # where the head's origin stands, in sides
LIMITS = np.radians([28.0, 35.0, 22.0])  # pitch, yaw, roll

# What faces do together, by the coefficients that move; a state mixes a few of them.
JAW_OPEN = {"jawOpen": 1.0}
SMILE = {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0, "cheekSquintLeft": 0.7, "cheekSquintRight": 0.7}
BROWS_UP = {"browInnerUp": 1.0, "browOuterUpLeft": 1.0, "browOuterUpRight": 1.0}
EYES_CLOSED = {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}
# What people look at first: each comes often, whatever the others do.
LOOKED_AT_FIRST: tuple[Mapping[str, float], ...] = (JAW_OPEN, SMILE, BROWS_UP, EYES_CLOSED)
GESTURES: tuple[Mapping[str, float], ...] = (
    JAW_OPEN,
    {"jawOpen": 1.0, "mouthSmileLeft": 0.8, "mouthSmileRight": 0.8},
    SMILE,
    {"mouthSmileLeft": 1.0, "mouthDimpleLeft": 0.8},
    {"mouthSmileRight": 1.0, "mouthDimpleRight": 0.8},
    {"mouthFrownLeft": 1.0, "mouthFrownRight": 1.0, "mouthShrugLower": 0.6},
    {"mouthPucker": 1.0},
    {"mouthFunnel": 1.0, "jawOpen": 0.35},
    {"mouthStretchLeft": 1.0, "mouthStretchRight": 1.0},
    {"mouthLeft": 1.0},
    {"mouthRight": 1.0},
    {"jawLeft": 1.0},
    {"jawRight": 1.0},
    {"mouthRollLower": 1.0, "mouthRollUpper": 1.0, "mouthPressLeft": 0.5, "mouthPressRight": 0.5},
    {"mouthUpperUpLeft": 1.0, "mouthUpperUpRight": 1.0, "noseSneerLeft": 0.9, "noseSneerRight": 0.9},
    {"mouthLowerDownLeft": 1.0, "mouthLowerDownRight": 1.0},
    {"jawOpen": 0.7, "mouthClose": 0.9},
    {"cheekPuff": 1.0},
    {"jawForward": 1.0},
)
BROWS: tuple[Mapping[str, float], ...] = (
    {**BROWS_UP, "eyeWideLeft": 0.7, "eyeWideRight": 0.7},
    {"browInnerUp": 1.0},
    {"browDownLeft": 1.0, "browDownRight": 1.0, "eyeSquintLeft": 0.5, "eyeSquintRight": 0.5},
    {"browOuterUpLeft": 1.0, "browDownRight": 0.5},
    {"browOuterUpRight": 1.0, "browDownLeft": 0.5},
)
LIDS: tuple[Mapping[str, float], ...] = (
    EYES_CLOSED,
    {"eyeBlinkLeft": 1.0},
    {"eyeBlinkRight": 1.0},
    {"eyeSquintLeft": 1.0, "eyeSquintRight": 1.0},
    {"eyeWideLeft": 1.0, "eyeWideRight": 1.0},
)


def coefficients(**amounts: float) -> np.ndarray:
    """(51,): the named ARKit coefficients, the others 0."""
    values = np.zeros(len(ARKIT_NAMES))
    for name, amount in amounts.items():
        values[ARKIT_INDEX[name]] = amount
    return values


def face_state(
    size: int,
    rotation: tuple[float, float, float] = (0.0, 0.0, 0.0),
    expression: np.ndarray | None = None,
    face_width: float = MEAN_FACE_WIDTH,
    centre: tuple[float, float] = CENTRE,
    time: Fraction = Fraction(0),
) -> FaceFrame:
    """A head in a square picture: rotation in radians, face_width and centre as shares of the side."""
    scale = face_width * size / FACE_WIDTH
    translation = head_translation(np.array(centre) * size, scale, size, size)
    values = coefficients() if expression is None else expression
    return FaceFrame(time, size, size, True, np.array(rotation), translation, values)


def random_face(generator: np.random.Generator, size: int) -> FaceFrame:
    """Any pose within LIMITS, any expression, the head about the middle of a picture of size x size px."""
    rotation = LIMITS * np.clip(generator.normal(0.0, 0.55, 3), -1, 1)
    width = MEAN_FACE_WIDTH * generator.uniform(0.94, 1.06)
    centre = np.array(CENTRE) + generator.uniform(-0.03, 0.03, 2)
    return face_state(size, tuple(rotation), random_expression(generator), width, tuple(centre))


def random_expression(generator: np.random.Generator) -> np.ndarray:
    """(51,): some of LOOKED_AT_FIRST, more that mouth, brows and lids do now and then, and where the eyes look."""
    values = np.zeros(len(ARKIT_NAMES))
    often = [((gesture,), (0.3,)) for gesture in LOOKED_AT_FIRST]
    for gestures, chances in (*often, (GESTURES, (0.5, 0.25)), (BROWS, (0.3,)), (LIDS, (0.3,))):
        for chance in chances:
            gesture = gestures[int(generator.integers(len(gestures)))]
            amount = generator.uniform(0.2, 1.0) * (generator.random() < chance)
            values = np.maximum(values, coefficients(**{name: top * amount for name, top in gesture.items()}))
    across, up = np.clip(generator.normal(0.0, 0.4, 2), -1, 1)
    return np.clip(np.maximum(values, gaze(across, up)), 0.0, 1.0)


def gaze(across: float, up: float) -> np.ndarray:
    """(51,): both eyes look the same way; across in [-1, 1] to the person's left, up in [-1, 1]."""
    return coefficients(
        eyeLookOutLeft=max(across, 0.0),
        eyeLookInRight=max(across, 0.0),
        eyeLookInLeft=max(-across, 0.0),
        eyeLookOutRight=max(-across, 0.0),
        eyeLookUpLeft=max(up, 0.0),
        eyeLookUpRight=max(up, 0.0),
        eyeLookDownLeft=max(-up, 0.0),
        eyeLookDownRight=max(-up, 0.0),
    )


def random_track(
    generator: np.random.Generator, size: int, frames: int, fps: Fraction = Fraction(8), hold: int = 8
) -> FaceTrack:
    """A clip that goes smoothly from one random state to the next, `hold` frames each, and blinks."""
    first = random_face(generator, size)
    keys = [first] + [random_face(generator, size) for _ in range(frames // hold + 2)]
    blink = generator.random(frames) < 0.06
    states = []
    for index in range(frames):
        key, share = divmod(index / hold, 1)
        smooth = share * share * (3 - 2 * share)
        start, end = keys[int(key)], keys[int(key) + 1]
        expression = start.coefficients + (end.coefficients - start.coefficients) * smooth
        if blink[index]:
            expression = np.maximum(expression, coefficients(eyeBlinkLeft=1.0, eyeBlinkRight=1.0))
        rotation = interpolate_rotation(start.rotation, end.rotation, smooth)
        states.append(replace(first, time=index / fps, rotation=rotation, coefficients=expression))
    return FaceTrack(fps, tuple(states), frozenset(ARKIT_NAMES), "procedural")


def turned_degrees(rotation: np.ndarray, other: np.ndarray) -> float:
    """The angle of the turn from one rotation to another."""
    arc, _ = cv2.Rodrigues(rotation_matrix(rotation).T @ rotation_matrix(other))
    return float(np.degrees(np.linalg.norm(arc)))

"""The published head frame and camera: from rotation and translation to pixels and back.

Formulas: HelloMeme `tools/hello_3dmm.py`. The head frame has x to the picture's right, y up and z towards the camera;
a face at rotation zero looks into the camera. Positive rotation[0] (pitch) lowers the nose, rotation[1] (yaw) turns it
to the picture's right, rotation[2] (roll) turns the head counterclockwise in the picture. Points of pictures are
continuous: pixel i covers [i, i + 1).
"""

from __future__ import annotations

import math

import numpy as np

FOCAL_LENGTH = 4828.598903609935  # px in a picture of FOCAL_SIZE; -5.0 / -0.4 * 386.2879122887948 in the published code
FOCAL_SIZE = 512
RECTANGLE_HALF = 0.05  # half the side of the drawn head rectangle, in the head's units of x and y
RECTANGLE = np.array([[-1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [1.0, -1.0, 0.0]])


def rotation_matrix(rotation: np.ndarray) -> np.ndarray:
    """(3,) radians to the published (3, 3) matrix, for row vectors: `points @ rotation_matrix(rotation)`."""
    (sin_x, sin_y, sin_z), (cos_x, cos_y, cos_z) = np.sin(rotation), np.cos(rotation)
    about_x = np.array([[1, 0, 0], [0, cos_x, -sin_x], [0, sin_x, cos_x]])
    about_y = np.array([[cos_y, 0, sin_y], [0, 1, 0], [-sin_y, 0, cos_y]])
    about_z = np.array([[cos_z, -sin_z, 0], [sin_z, cos_z, 0], [0, 0, 1]])
    return (about_z @ about_y @ about_x).T


def rotation_angles(matrix: np.ndarray) -> np.ndarray:
    """The inverse of `rotation_matrix`: (3, 3) for row vectors to (3,) radians, yaw within +-pi/2."""
    pitch = math.atan2(matrix[1, 2], matrix[2, 2])
    yaw = math.atan2(-matrix[0, 2], math.hypot(matrix[0, 0], matrix[0, 1]))
    roll = math.atan2(matrix[0, 1], matrix[0, 0])
    return np.array([pitch, yaw, roll])


def focal_length(width: int, height: int) -> float:
    """In px: the published one at 512 px, scaled by the shorter side: a picture's size does not move the head."""
    return FOCAL_LENGTH * min(width, height) / FOCAL_SIZE


def head_scale(translation: np.ndarray, width: int, height: int) -> float:
    """Pixels that one unit of the head's x or y takes at the head's origin."""
    return focal_length(width, height) / -translation[2]


def head_origin(translation: np.ndarray, width: int, height: int) -> np.ndarray:
    """(2,) px: where the head's origin is seen."""
    scale = head_scale(translation, width, height)
    return np.array([width / 2 + translation[0] * scale, height / 2 - translation[1] * scale])


def head_translation(origin: np.ndarray, scale: float, width: int, height: int) -> np.ndarray:
    """The inverse of `head_origin` and `head_scale`: (2,) px and px a unit to the published (3,) translation."""
    x, y = (origin[0] - width / 2) / scale, (height / 2 - origin[1]) / scale
    return np.array([x, y, -focal_length(width, height) / scale])


def head_rectangle(
    rotation: np.ndarray, translation: np.ndarray, width: int, height: int, focal: float | None = None
) -> np.ndarray:
    """Where the rectangle about the head's origin is seen: (4, 2) px, from lower left over upper left, clockwise.

    focal in px: by default `focal_length(width, height)`; the published function takes FOCAL_LENGTH at any size.

    As published, x and y of the rectangle are divided by 20 but its depth is not, which exaggerates the perspective.
    """
    turned = RECTANGLE @ rotation_matrix(rotation)  # (4, 3)
    across = (turned[:, :2] * RECTANGLE_HALF + translation[:2]) * [1.0, -1.0]
    depth = -(turned[:, 2:] + translation[2])
    return across / depth * (focal or focal_length(width, height)) + [width / 2, height / 2]

"""Head pose in the published convention: a perspective fit of the average face to the landmarks."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from .camera import FOCAL_LENGTH, head_translation, rotation_angles, rotation_matrix
from .landmarks import ANCHORS, FACE_SPAN, MESH_POINTS
from .mean_face import mean_face


class HeadOffset(NamedTuple):
    """From the average face's frame to the published 3DMM's."""

    rotation: tuple[float, float, float]  # radians, applied to the head before its own rotation
    origin: tuple[float, float, float]  # of the 3DMM, in the average face's units (one is the face's width)
    unit: float  # the average face's width in the 3DMM's units


# UNVERIFIED: no 3DMM weights were at hand to measure it. Rotation and origin are taken as equal (the origin is the
# middle between brows and chin). The unit follows from the published code: its 224 px crop leaves the landmarks 65 % of
# the side, and its camera starts at a distance of 5, where a unit takes 4828.6 / 5 px; so a face that lies there is
# 0.1508 units wide.
PUBLISHED_OFFSET = HeadOffset((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), unit=224 * 0.65 / (FOCAL_LENGTH / 5))

# The fit's own camera looks straight at the face from this many face widths, about 0.8 m. Where the face lies in the
# picture does not matter: the published network, too, sees only a crop about the face.
CAMERA_DISTANCE = 5.5

_MOVING = {*ANCHORS["mouth_outer"], *ANCHORS["mouth_inner"], *ANCHORS["right_eye"], *ANCHORS["left_eye"]}


def head_pose(mesh: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """(478, 3) px landmarks of a width x height picture to rotation (3,) radians and translation (3,), as published."""
    matrix, origin, scale = fit_face(mesh)
    offset = rotation_matrix(np.array(PUBLISHED_OFFSET.rotation))
    translation = head_translation(origin, scale / PUBLISHED_OFFSET.unit, width, height)
    return rotation_angles(offset @ matrix), translation


def fit_face(mesh: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """(478, 3) px landmarks to the average face's pose: (3, 3) for row vectors, origin (2,) px, width in px.

    SQPNP (Terzakis, Lourakis, ECCV 2020), then Levenberg-Marquardt.
    """
    span = mesh[list(FACE_SPAN), :2]
    centre = (span.min(axis=0) + span.max(axis=0)) / 2
    focal = np.ptp(span, axis=0).max() * CAMERA_DISTANCE
    camera = np.array([[focal, 0.0, centre[0]], [0.0, focal, centre[1]], [0.0, 0.0, 1.0]])
    rigid = rigid_points()
    model = (mean_face()[rigid] - PUBLISHED_OFFSET.origin) * [1.0, -1.0, -1.0]  # OpenCV: y down, z away
    seen = np.ascontiguousarray(mesh[rigid, :2])
    _, turn, shift = cv2.solvePnP(model, seen, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    turn, shift = cv2.solvePnPRefineLM(model, seen, camera, None, turn, shift)
    column, _ = cv2.Rodrigues(turn)
    flip = np.diag([1.0, -1.0, -1.0])
    origin = shift[:2, 0] / shift[2, 0] * focal + centre
    return (flip @ column @ flip).T, origin, float(focal / shift[2, 0])


def rigid_points() -> np.ndarray:
    """Indices of landmarks that neither jaw, lips nor lids move: above the mouth, without the eyes."""
    nose_base = mean_face()[2, 1]
    return np.array([i for i in range(MESH_POINTS) if mean_face()[i, 1] > nose_base and i not in _MOVING])

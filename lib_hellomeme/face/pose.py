"""Head pose in the published convention: a perspective fit of the average face to the landmarks."""

from __future__ import annotations

import functools
from typing import NamedTuple

import cv2
import numpy as np

from lib_hellomeme.face.camera import FOCAL_LENGTH, head_translation, rotation_angles, rotation_matrix
from lib_hellomeme.face.landmarks import ANCHORS, FACE_SPAN, MESH_POINTS
from lib_hellomeme.face.mean_face import mean_face_with_irises


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

# The fit's own camera looks straight at the face from this many face widths, about 1.1 m. Where the face lies in the
# picture does not matter: the published network, too, sees only a crop about the face.
CAMERA_DISTANCE = 8.0

_SPAN = np.array(FACE_SPAN)
NO_DISTORTION = np.empty(0)  # of the lens
REFINED = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 20, 1e-4)  # to 0.001 degrees, in half of OpenCV's time

_MOVING = {*ANCHORS["mouth_outer"], *ANCHORS["mouth_inner"], *ANCHORS["right_eye"], *ANCHORS["left_eye"]}


class FaceFit(NamedTuple):
    """Where the average face lies when it fits the landmarks best."""

    matrix: np.ndarray  # (3, 3) for row vectors
    origin: np.ndarray  # (2,) px
    width: float  # px of the face


def head_pose(fit: FaceFit, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (3,) radians and translation (3,), as published, of a head in a width x height picture."""
    turned_origin = (np.array(PUBLISHED_OFFSET.origin) @ fit.matrix)[:2] * [1.0, -1.0] * fit.width
    translation = head_translation(fit.origin + turned_origin, fit.width / PUBLISHED_OFFSET.unit, width, height)
    return rotation_angles(rotation_matrix(np.array(PUBLISHED_OFFSET.rotation)) @ fit.matrix), translation


def fit_face(mesh: np.ndarray, box: np.ndarray | None = None, used: np.ndarray | None = None) -> FaceFit:
    """(478, 3) px landmarks, unknown ones NaN, to the average face's pose, from their x and y alone.

    box: (4,) px that the face spans, by default face_span(mesh). used: indices of the landmarks to fit to, of which at
    least three must be known; by default fitted_points(). SQPNP (Terzakis, Lourakis, ECCV 2020), then
    Levenberg-Marquardt.
    """
    used = fitted_points() if used is None else used
    used = used[~np.isnan(mesh[used, 0])]
    box = face_span(mesh) if box is None else box
    centre = (box[:2] + box[2:]) / 2
    focal = (box[2:] - box[:2]).max() * CAMERA_DISTANCE
    camera = np.array([[focal, 0.0, centre[0]], [0.0, focal, centre[1]], [0.0, 0.0, 1.0]])
    flip = np.diag([1.0, -1.0, -1.0])  # OpenCV: y down, z away from the camera
    model, seen = mean_face_with_irises()[used] @ flip, np.ascontiguousarray(mesh[used, :2])
    _, turn, shift = cv2.solvePnP(model, seen, camera, NO_DISTORTION, flags=cv2.SOLVEPNP_SQPNP)
    turn, shift = cv2.solvePnPRefineLM(model, seen, camera, NO_DISTORTION, turn, shift, REFINED)
    column, _ = cv2.Rodrigues(turn)
    origin = shift[:2, 0] / shift[2, 0] * focal + centre
    return FaceFit((flip @ column @ flip).T, origin, float(focal / shift[2, 0]))


def face_span(mesh: np.ndarray) -> np.ndarray:
    """(478, 3) px landmarks to the box (4,) about those of FACE_SPAN."""
    span = mesh[_SPAN, :2]
    return np.concatenate([np.nanmin(span, axis=0), np.nanmax(span, axis=0)])


@functools.cache
def fitted_points() -> np.ndarray:
    """Indices of all landmarks but lips and lids. With the jaw: it moves pitch less than its lack would."""
    return np.array([index for index in range(MESH_POINTS) if index not in _MOVING])

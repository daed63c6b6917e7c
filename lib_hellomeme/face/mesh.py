"""From MediaPipe's 478 landmarks, all or some of them, to one frame of a track."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from lib_hellomeme.face.expression import expression
from lib_hellomeme.face.landmarks import ANCHORS
from lib_hellomeme.face.pose import face_span, fit_face, head_pose
from lib_hellomeme.face.track import FaceFrame

_ANCHORS = {name: np.array(indices) for name, indices in ANCHORS.items()}


def frame_of_mesh(
    mesh: np.ndarray,
    width: int,
    height: int,
    time: Fraction = Fraction(0),
    box: np.ndarray | None = None,
    used: np.ndarray | None = None,
) -> FaceFrame:
    """(478, 3) px landmarks of a width x height picture to head pose, coefficients, box and anchors.

    Landmarks that are not known are NaN: the pose is made from those that are, anchors that miss one are left out, and
    so are coefficients (0). box: (4,) px, by default what those of FACE_SPAN span. used: see `fit_face`.
    """
    box = face_span(mesh) if box is None else box
    fit = fit_face(mesh, box, used)
    rotation, translation = head_pose(fit, width, height)
    points = mesh[:, :2]
    anchors = {name: points[indices] for name, indices in _ANCHORS.items()}
    return FaceFrame(
        time=time,
        width=width,
        height=height,
        found=True,
        rotation=rotation,
        translation=translation,
        coefficients=expression(mesh, fit),
        box=box,
        anchors={name: found for name, found in anchors.items() if not np.isnan(found).any()},
    )

"""From MediaPipe's 478 landmarks, all or some of them, to one frame of a track."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from lib_hellomeme.face.expression import expression
from lib_hellomeme.face.landmarks import ANCHORS, FACE_SPAN
from lib_hellomeme.face.pose import fit_face, head_pose
from lib_hellomeme.face.track import FaceFrame

_SPAN = np.array(FACE_SPAN)
_ANCHORS = {name: np.array(indices) for name, indices in ANCHORS.items()}


def frame_of_mesh(mesh: np.ndarray, width: int, height: int, time: Fraction = Fraction(0)) -> FaceFrame:
    """(478, 3) px landmarks of a width x height picture to head pose, coefficients, box and anchors.

    Landmarks that are not known are NaN: pose and box are made from those that are, anchors that miss one are left out,
    and so are coefficients (0).
    """
    fit = fit_face(mesh)
    rotation, translation = head_pose(fit, width, height)
    points = mesh[:, :2]
    span = points[_SPAN]
    anchors = {name: points[indices] for name, indices in _ANCHORS.items()}
    return FaceFrame(
        time=time,
        width=width,
        height=height,
        found=True,
        rotation=rotation,
        translation=translation,
        coefficients=expression(mesh, fit),
        box=np.concatenate([np.nanmin(span, axis=0), np.nanmax(span, axis=0)]),
        anchors={name: found for name, found in anchors.items() if not np.isnan(found).any()},
    )

"""From MediaPipe's 478 landmarks to one frame of a track; every MediaPipe extractor goes through here."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from lib_hellomeme.face.expression import expression
from lib_hellomeme.face.landmarks import ANCHORS, FACE_SPAN
from lib_hellomeme.face.pose import fit_face, head_pose
from lib_hellomeme.face.track import FaceFrame


def frame_of_mesh(mesh: np.ndarray, width: int, height: int, time: Fraction = Fraction(0)) -> FaceFrame:
    """(478, 3) px landmarks of a width x height picture to head pose, coefficients, box and anchors."""
    fit = fit_face(mesh)
    rotation, translation = head_pose(fit, width, height)
    points = mesh[:, :2]
    span = points[list(FACE_SPAN)]
    return FaceFrame(
        time=time,
        width=width,
        height=height,
        found=True,
        rotation=rotation,
        translation=translation,
        coefficients=expression(mesh, fit),
        box=np.concatenate([span.min(axis=0), span.max(axis=0)]),
        anchors={name: points[list(indices)] for name, indices in ANCHORS.items()},
    )

"""Ways from one face to another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lib_hellomeme.face.track import FaceFrame, interpolate_rotation


def interpolate_frames(left: FaceFrame, right: FaceFrame, share: float) -> FaceFrame:
    """The face on its way from left (share 0) to right (1), at left's time, in its picture. What one lacks is left
    out."""

    def mix(name: str) -> np.ndarray | None:
        start, end = getattr(left, name), getattr(right, name)
        return None if start is None or end is None else start + (end - start) * share

    mixed: dict[str, Any] = {name: mix(name) for name in ("translation", "coefficients", "box", "pd_fgc", "face_parts")}
    shared = [name for name in left.anchors if name in right.anchors]
    return replace(
        left,
        found=left.found and right.found,
        rotation=interpolate_rotation(left.rotation, right.rotation, share),
        anchors={name: left.anchors[name] + (right.anchors[name] - left.anchors[name]) * share for name in shared},
        **mixed,
    )


def ease(share: Any) -> Any:
    """A share of the time, a float or an array, to the share of the way, both in [0, 1]: from rest to rest with the
    least jerk (Flash, Hogan, J. Neurosci. 1985)."""
    share = np.clip(share, 0.0, 1.0)
    return share**3 * (10.0 + share * (6.0 * share - 15.0))

"""The whole chain on a real photo without a download, by the drawn world's weights."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from lib_hellomeme.errors import DependencyError
from lib_hellomeme.standalone.drawn_demo import run_drawn_demo
from lib_hellomeme.standalone.world import WORLD


def run_demo(folder: str | os.PathLike[str]) -> None:
    """Leave a sheet and a video in `folder`; the last line names them."""
    whole = _astronaut()
    mirrored = np.ascontiguousarray(_head(whole, -15.0)[:, ::-1])
    drivers = {"tilted, mouth open": _head(_jaw_dropped(whole), -20.0), "mirrored": mirrored}
    run_drawn_demo(Path(folder), WORLD, {"a photo": _head(whole), **drivers})


def _astronaut() -> np.ndarray:
    try:
        from skimage import data
    except ImportError as error:
        raise DependencyError("the demo's photo comes with scikit-image: pip install scikit-image") from error
    return data.astronaut()


def _head(photo: np.ndarray, degrees: float = 0.0) -> np.ndarray:
    """Head and shoulders of the astronaut, turned to the left."""
    turn = cv2.getRotationMatrix2D((225.0, 155.0), degrees, 1.0)
    turned = cv2.warpAffine(photo, turn, photo.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(turned[20:290, 90:360])


def _jaw_dropped(photo: np.ndarray) -> np.ndarray:
    """The astronaut with the mouth pulled open."""
    x_middle, upper, lower, drop = 225.0, 142.0, 150.0, 14.0  # px: middle of the mouth, inner edges of the lips
    height, width = photo.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    # Source rows of a column through the mouth's middle: the gap between the lips grows, the neck takes it back.
    rows = np.interp(y, [0, upper, lower + drop, lower + 6 * drop, height], [0, upper, lower, lower + 6 * drop, height])
    share = np.exp(-(((x - x_middle) / 40.0) ** 2))
    source = y + (rows - y) * share
    return cv2.remap(photo, x, source.astype(np.float32), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)

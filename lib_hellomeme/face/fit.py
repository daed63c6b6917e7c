"""Pictures of any shape brought to the size of the output, and the head with them."""

from __future__ import annotations

import cv2
import numpy as np

from lib_hellomeme.face.alignment import crop_window
from lib_hellomeme.face.track import FaceFrame


def fit_picture(
    picture: np.ndarray, frame: FaceFrame, width: int, height: int, how: str
) -> tuple[np.ndarray, FaceFrame, np.ndarray]:
    """RGB uint8 of any size to (height, width, 3), the frame in it, and the (2, 3) matrix from px to px.

    "face" is the published crop about the face's box, for any shape, and "crop" where there is no box; "crop" the
    largest centred part of the output's shape; "pad" the whole picture, its edges repeated; "stretch" the whole picture
    in another shape, of which the head takes the closest similarity.
    """
    fitted, matrix = fit_pixels(picture, width, height, how, frame.box)
    return fitted, frame.transformed(matrix, width, height), matrix


def fit_pixels(
    picture: np.ndarray, width: int, height: int, how: str, box: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`fit_picture` without a head; `box` (4,): of a face, where there is one."""
    picture_height, picture_width = picture.shape[:2]
    if how == "face" and box is not None:
        window = crop_window(box[None], (picture_width, picture_height), (width, height))
    elif how in ("face", "crop"):
        window = _centred_window(picture_width, picture_height, width, height)
    else:
        window = (0, 0, picture_width, picture_height)
    return _resize_window(picture, window, width, height, keep_shape=how == "pad")


def _centred_window(picture_width: int, picture_height: int, width: int, height: int) -> tuple[int, int, int, int]:
    scale = min(picture_width / width, picture_height / height)
    part_width, part_height = max(1, round(width * scale)), max(1, round(height * scale))
    x0, y0 = (picture_width - part_width) // 2, (picture_height - part_height) // 2
    return x0, y0, x0 + part_width, y0 + part_height


def _resize_window(
    picture: np.ndarray, window: tuple[int, int, int, int], width: int, height: int, keep_shape: bool
) -> tuple[np.ndarray, np.ndarray]:
    x0, y0, x1, y1 = window
    new_width, new_height = width, height
    if keep_shape:
        scale = min(width / (x1 - x0), height / (y1 - y0))
        new_width, new_height = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    shrinks = new_width < x1 - x0 or new_height < y1 - y0
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    resized = cv2.resize(picture[y0:y1, x0:x1], (new_width, new_height), interpolation=method)
    left, top = (width - new_width) // 2, (height - new_height) // 2
    right, bottom = width - new_width - left, height - new_height - top
    fitted = cv2.copyMakeBorder(resized, top, bottom, left, right, cv2.BORDER_REPLICATE)
    scale_x, scale_y = new_width / (x1 - x0), new_height / (y1 - y0)
    return fitted, np.array([[scale_x, 0.0, left - x0 * scale_x], [0.0, scale_y, top - y0 * scale_y]])

"""The picture that tells the control network where the head is: four thick coloured sides of the head rectangle."""

from __future__ import annotations

import math

import cv2
import numpy as np

from lib_hellomeme.face.camera import FOCAL_SIZE, head_rectangle

LINE_WIDTH = 15  # px in a picture of FOCAL_SIZE
CELL = 4  # px: networks look at every fourth or eighth px
SIDE_COLOURS = ((0, 255, 0), (0, 0, 255), (255, 0, 0), (255, 0, 255))  # RGB: left, top, right, bottom at rotation zero


def condition_image(rotation: np.ndarray, translation: np.ndarray, width: int, height: int) -> np.ndarray:
    """(3,) radians and (3,) published translation to an RGB picture (height, width, 3), uint8, black around the lines.

    Published drawing: HelloMeme `utils.draw_skl_by_rect` (corners cut to whole pixels), there with BGR colours.
    """
    image = np.zeros((height, width, 3), np.uint8)
    line_width = max(1, round(LINE_WIDTH * min(width, height) / FOCAL_SIZE))
    corners = head_rectangle(rotation, translation, width, height).astype(np.int32)
    for side, colour in enumerate(SIDE_COLOURS):
        start, end = corners[side].tolist(), corners[(side + 1) % 4].tolist()
        cv2.line(image, start, end, colour, line_width)
    return image


def condition_tensor(image: np.ndarray) -> np.ndarray:
    """RGB uint8 (H, W, 3) to the control network's input: float32 (3, H, W) in [-1, 1], red, green, blue."""
    return np.ascontiguousarray(image.transpose(2, 0, 1), np.float32) / 127.5 - 1.0


def condition_input(rotation: np.ndarray, translation: np.ndarray, width: int, height: int) -> np.ndarray:
    """The condition image as control networks are given it: float32 (3, height, width) in [-1, 1].

    They look at every eighth px. Between those fall the lines of pictures smaller than FOCAL_SIZE, whose corners on
    whole px tell the pose less well, too: such pictures are drawn larger and averaged over cells.
    """
    factor = math.ceil(FOCAL_SIZE / min(width, height))
    image = condition_image(rotation, translation, width * factor, height * factor)
    if factor > 1:
        cells = cv2.resize(image, (width // CELL, height // CELL), interpolation=cv2.INTER_AREA)
        image = cv2.resize(cells, (width, height), interpolation=cv2.INTER_NEAREST)
    return condition_tensor(image)

"""What the extractor saw, drawn into the picture for people to look at."""

from __future__ import annotations

import cv2
import numpy as np

from lib_hellomeme.face.camera import RECTANGLE_HALF, head_origin, head_scale, rotation_matrix
from lib_hellomeme.face.condition import condition_image
from lib_hellomeme.face.track import FaceFrame

AXIS_COLOURS = ((255, 64, 64), (64, 255, 64), (64, 128, 255))  # x, y, z
OUTLINE_COLOUR, POINT_COLOUR, BOX_COLOUR = (255, 255, 255), (255, 220, 0), (255, 160, 0)
CLOSED = ("right_eye", "left_eye", "right_brow", "left_brow", "mouth_outer", "mouth_inner")
OPEN = ("jaw",)
PREVIEW_SIDE = 768  # px of the longer side
INSET = 0.25  # of the shorter side, for the condition image


def draw_preview(picture: np.ndarray, frame: FaceFrame) -> np.ndarray:
    """RGB uint8 (H, W, 3) to a copy, at most PREVIEW_SIDE px, with outlines, box, pose axes and condition image."""
    scale = min(1.0, PREVIEW_SIDE / max(picture.shape[:2]))
    width, height = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    canvas = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    small = frame.transformed(np.array([[scale, 0.0, 0.0], [0.0, scale, 0.0]]), width, height)
    _draw_outlines(canvas, small)
    if small.box is not None:
        x0, y0, x1, y1 = np.rint(small.box).astype(int).tolist()
        cv2.rectangle(canvas, (x0, y0), (x1, y1), BOX_COLOUR, 1, cv2.LINE_AA)
    if small.found:
        _draw_axes(canvas, small)
    _draw_inset(canvas, small)
    return canvas


def _draw_outlines(canvas: np.ndarray, frame: FaceFrame) -> None:
    for name, points in frame.anchors.items():
        whole = np.rint(points).astype(np.int32)
        if name in CLOSED or name in OPEN:
            cv2.polylines(canvas, [whole], name in CLOSED, OUTLINE_COLOUR, 1, cv2.LINE_AA)
        else:
            for point in whole.tolist():
                cv2.circle(canvas, point, 2, POINT_COLOUR, -1, cv2.LINE_AA)


def _draw_axes(canvas: np.ndarray, frame: FaceFrame) -> None:
    """x, y and z of the head in red, green and blue, without perspective, from the head's origin."""
    origin = head_origin(frame.translation, frame.width, frame.height)
    length = RECTANGLE_HALF * head_scale(frame.translation, frame.width, frame.height)
    ends = origin + rotation_matrix(frame.rotation)[:, :2] * [1.0, -1.0] * length
    start = np.rint(origin).astype(int).tolist()
    for end, colour in zip(np.rint(ends).astype(int).tolist(), AXIS_COLOURS, strict=True):
        cv2.arrowedLine(canvas, start, end, colour, 2, cv2.LINE_AA, tipLength=0.2)


def _draw_inset(canvas: np.ndarray, frame: FaceFrame) -> None:
    """The condition image of the whole picture, small, in the lower right corner."""
    image = condition_image(frame.rotation, frame.translation, frame.width, frame.height)
    width, height = max(1, round(frame.width * INSET)), max(1, round(frame.height * INSET))
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    cv2.rectangle(small, (0, 0), (width - 1, height - 1), OUTLINE_COLOUR, 1)
    canvas[-height:, -width:] = small

"""What the extractor saw, drawn into pictures for people to look at."""

from __future__ import annotations

import os
from collections.abc import Callable

import cv2
import numpy as np

from lib_hellomeme.face.camera import RECTANGLE_HALF, head_origin, head_scale, rotation_matrix
from lib_hellomeme.face.condition import condition_image
from lib_hellomeme.face.track import FaceFrame, FaceTrack
from lib_hellomeme.video.decode import Video
from lib_hellomeme.video.encode import VideoWriter

AXIS_COLOURS = ((255, 64, 64), (64, 255, 64), (64, 128, 255))  # x, y, z
OUTLINE_COLOUR, POINT_COLOUR, BOX_COLOUR, LOST_COLOUR = (255, 255, 255), (255, 220, 0), (255, 160, 0), (255, 80, 80)
CLOSED = ("right_eye", "left_eye", "right_brow", "left_brow", "mouth_outer", "mouth_inner")
OPEN = ("jaw",)
PREVIEW_SIDE = 768  # px of the longer side
INSET = 0.25  # of the shorter side, for the condition image
CAPTION_HEIGHT = 24  # px
LETTER_HEIGHT = 0.45  # of OpenCV's Hershey letters, whose full size is about 22 px


def draw_preview(picture: np.ndarray, frame: FaceFrame) -> np.ndarray:
    """RGB uint8 (H, W, 3) to a copy, at most PREVIEW_SIDE px, with outlines, box, pose axes and condition image."""
    canvas, small = _draw_face(picture, frame, PREVIEW_SIDE)
    _draw_inset(canvas, small)
    return canvas


def draw_preview_beside(picture: np.ndarray, frame: FaceFrame, longest: int = 512) -> np.ndarray:
    """A frame of a preview video: the drawn face, beside it the condition image, below both time and angles.

    RGB uint8 (H, W, 3) to (h + CAPTION_HEIGHT, 2 w, 3), where h and w are at most `longest` px.
    """
    canvas, small = _draw_face(picture, frame, longest)
    condition = condition_image(small.rotation, small.translation, small.width, small.height)
    pair = cv2.copyMakeBorder(np.hstack([canvas, condition]), 0, CAPTION_HEIGHT, 0, 0, cv2.BORDER_CONSTANT)
    pitch, yaw, roll = np.rint(np.degrees(frame.rotation)) + 0.0  # no -0
    angles = f"{float(frame.time):7.2f} s   pitch {pitch:+.0f}   yaw {yaw:+.0f}   roll {roll:+.0f}"
    text, colour = (angles, OUTLINE_COLOUR) if frame.found else (f"{angles}   (no face)", LOST_COLOUR)
    place = (6, pair.shape[0] - 7)
    cv2.putText(pair, text, place, cv2.FONT_HERSHEY_SIMPLEX, LETTER_HEIGHT, colour, 1, cv2.LINE_AA)
    return pair


def write_preview(
    video: Video,
    track: FaceTrack,
    path: str | os.PathLike[str],
    longest: int = 512,
    progress: Callable[[int], None] | None = None,
) -> None:
    """The whole video frame by frame as in `draw_preview_beside`, with its times and its sound; see `VideoWriter`.

    Frames that differ in size from the first are stretched to it. progress is called with the number of frames done.
    Raises PictureError where the video cannot be read or the preview cannot be written.
    """
    with VideoWriter(path, video.fps, sound=video.path) as writer:
        size: tuple[int, int] | None = None
        for index, ((picture, time), frame) in enumerate(zip(video.frames(), track.frames, strict=False)):
            drawn = draw_preview_beside(picture, frame, longest)
            size = size or (drawn.shape[1], drawn.shape[0])
            writer.write(drawn if (drawn.shape[1], drawn.shape[0]) == size else cv2.resize(drawn, size), time)
            if progress:
                progress(index + 1)


def _draw_face(picture: np.ndarray, frame: FaceFrame, longest: int) -> tuple[np.ndarray, FaceFrame]:
    """A copy with sides of at most `longest` px and the face drawn into it, and the frame in its px."""
    scale = min(1.0, longest / max(picture.shape[:2]))
    width, height = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    canvas = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    small = frame.transformed(np.array([[scale, 0.0, 0.0], [0.0, scale, 0.0]]), width, height)
    _draw_outlines(canvas, small)
    if small.box is not None:
        x0, y0, x1, y1 = np.rint(small.box).astype(int).tolist()
        cv2.rectangle(canvas, (x0, y0), (x1, y1), BOX_COLOUR if frame.found else LOST_COLOUR, 1, cv2.LINE_AA)
    if small.found:
        _draw_axes(canvas, small)
    return canvas, small


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

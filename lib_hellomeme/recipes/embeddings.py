"""What learned encoders see of a face: PD-FGC's motion embedding and CLIP's embeddings of eyes and mouth.

The crops are the published ones (HelloMeme `utils.py`, `warp_face_pd_fgc` and `get_face_parts`), cut from the published
crop about the face. They were made for the 222 landmarks of the published detector; where another extractor was used,
the same points are taken from its outlines, brows with eyes.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from lib_hellomeme.face.alignment import (
    FACE_PARTS_POINTS,
    FACE_PARTS_SPANS,
    PD_FGC_POINTS,
    face_parts_matrix,
    pd_fgc_matrix,
)
from lib_hellomeme.face.camera import FOCAL_SIZE
from lib_hellomeme.face.fit import fit_picture
from lib_hellomeme.face.landmarks import PUBLISHED
from lib_hellomeme.face.track import FaceFrame

PD_FGC_SIZE = 224
CLIP_SIZE = 224
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI CLIP
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)

# The published parts in their order: the eye at the left of the picture with its brow, the other one, the mouth.
PARTS = (("right_eye", "right_brow"), ("left_eye", "left_brow"), ("mouth_outer",))
PART_SIZE = 256
PART_MARGIN = 1.2


@torch.inference_mode()
def with_pd_fgc(encoder: nn.Module, picture: np.ndarray, face: FaceFrame) -> FaceFrame:
    """The face with its PD-FGC embedding (548,), of a picture RGB uint8 (H, W, 3). Unchanged where none was found."""
    if not face.found:
        return face
    shown, placed, _ = fit_picture(picture, face, FOCAL_SIZE, FOCAL_SIZE, "face")
    if PUBLISHED in placed.anchors:
        points = placed.anchors[PUBLISHED][list(PD_FGC_POINTS)]
    else:
        points = np.concatenate([_anchors(placed, "right_pupil", "left_pupil", "nose_tip"), _mouth_corners(placed)])
    matrix = pd_fgc_matrix(points, PD_FGC_SIZE)
    crop = cv2.warpAffine(shown, matrix, (PD_FGC_SIZE, PD_FGC_SIZE), flags=cv2.INTER_CUBIC)
    return replace(face, pd_fgc=_encoded(encoder, [crop / 127.5 - 1])[0])


@torch.inference_mode()
def pd_fgc_of_nobody(encoder: nn.Module) -> np.ndarray:
    """The embedding (548,) of an all -1 picture, which v1 and v2 give to rows without a face."""
    return _encoded(encoder, [np.full((PD_FGC_SIZE, PD_FGC_SIZE, 3), -1.0)])[0]


@torch.inference_mode()
def with_face_parts(encoder: nn.Module, picture: np.ndarray, face: FaceFrame) -> FaceFrame:
    """The face with CLIP's embeddings of its parts (3, 1024), of a picture RGB uint8 (H, W, 3). Unchanged where none
    was found."""
    if not face.found:
        return face
    parts = [(part / 255 - CLIP_MEAN) / CLIP_DEVIATION for part in face_parts(picture, face)]
    return replace(face, face_parts=_encoded(encoder, parts))


def face_parts(picture: np.ndarray, face: FaceFrame) -> list[np.ndarray]:
    """Eye, eye and mouth, RGB uint8 (224, 224, 3), cut from the upright face."""
    shown, placed, _ = fit_picture(picture, face, FOCAL_SIZE, FOCAL_SIZE, "face")
    if PUBLISHED in placed.anchors:
        points = placed.anchors[PUBLISHED][list(FACE_PARTS_POINTS)]
        spans = [placed.anchors[PUBLISHED][list(rows)] for rows in FACE_PARTS_SPANS]
    else:
        eyes = _anchors(placed, "eye_corners")  # the person's right outer, right inner, left inner, left outer
        right_mouth, left_mouth = _mouth_corners(placed)
        points = np.stack([(eyes[1] + eyes[2]) / 2, eyes[0], eyes[3], left_mouth, right_mouth])
        spans = [_anchors(placed, *names) for names in PARTS]
    matrix = face_parts_matrix(points, FOCAL_SIZE, FOCAL_SIZE)
    upright = cv2.warpAffine(shown, matrix, (FOCAL_SIZE, FOCAL_SIZE))
    return [_part(upright, span @ matrix[:, :2].T + matrix[:, 2]) for span in spans]


def _part(upright: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A blurred square about the points, as the published code cuts it."""
    top_left, bottom_right = points.min(axis=0), points.max(axis=0)
    centre = (top_left + bottom_right) / 2
    scale = PART_SIZE / ((bottom_right - top_left).max() * PART_MARGIN)
    matrix = np.column_stack([np.eye(2) * scale, PART_SIZE / 2 - scale * centre])
    part = cv2.GaussianBlur(cv2.warpAffine(upright, matrix, (PART_SIZE, PART_SIZE)), (5, 5), 0)
    return cv2.resize(part, (CLIP_SIZE, CLIP_SIZE), interpolation=cv2.INTER_CUBIC)


def _anchors(face: FaceFrame, *names: str) -> np.ndarray:
    return np.concatenate([face.anchors[name] for name in names])


def _mouth_corners(face: FaceFrame) -> np.ndarray:
    """The person's right corner, then the left one."""
    return face.anchors["mouth_corners"]


def _encoded(encoder: nn.Module, pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures (H, W, 3), normalised, to what the encoder makes of them."""
    weight = next(encoder.parameters())
    batch: Tensor = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(weight.device, weight.dtype)
    return encoder(batch).float().cpu().numpy()

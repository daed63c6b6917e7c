"""What goes into the published face detector and what its outputs mean: NanoDet-Plus with one class.

Formulas: HelloMeme `tools/hello_face_det.py`. Pictures are BGR, as there.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

INPUT_SHAPE = (272, 160)  # height, width
STRIDES = (8, 16, 32)
CELLS = tuple(math.ceil(INPUT_SHAPE[0] / stride) * math.ceil(INPUT_SHAPE[1] / stride) for stride in STRIDES)
BINS = 8  # of each side's distance, in strides
MEAN = np.array([103.53, 116.28, 123.675], np.float32) / 255
DEVIATION = np.array([57.375, 57.12, 58.395], np.float32) / 255
SCORE, OVERLAP = 0.4, 0.3
CANDIDATES, KEPT = 1000, 200  # of each level by score, and of all before overlapping ones are dropped


def detector_input(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """BGR uint8 (H, W, 3) to (1, 3, 272, 160) and the (3, 3) matrix from the picture's px to the input's."""
    height, width = picture.shape[:2]
    rows, columns = INPUT_SHAPE
    scale = rows / height if width / height < columns / rows else columns / width
    shift_x, shift_y = 0.5 * columns - scale * (width / 2), 0.5 * rows - scale * (height / 2)
    matrix = np.array([[scale, 0.0, shift_x], [0.0, scale, shift_y], [0.0, 0.0, 1.0]])
    resized = cv2.warpPerspective(picture, matrix, (columns, rows))
    return ((resized.astype(np.float32) / 255 - MEAN) / DEVIATION).transpose(2, 0, 1)[None], matrix


def face_boxes(
    scores: list[np.ndarray], distances: list[np.ndarray], matrix: np.ndarray, width: int, height: int
) -> np.ndarray:
    """For each stride scores (1, n, 1) and distance distributions (1, n, 4 * BINS) to boxes (faces, 4) in whole px of
    the width x height picture, the surest first."""
    kept_boxes, kept_scores = [], []
    for stride, level_scores, level_distances in zip(STRIDES, scores, distances, strict=True):
        flat = level_scores.reshape(-1)
        best = np.argsort(flat)[::-1][:CANDIDATES]
        kept_boxes.append(_level_boxes(level_distances.reshape(-1, 4, BINS), stride)[best])
        kept_scores.append(flat[best])
    boxes, sure = np.concatenate(kept_boxes), np.concatenate(kept_scores)
    boxes, sure = boxes[sure > SCORE], sure[sure > SCORE]
    boxes = boxes[_without_overlaps(boxes, sure)]
    scale, shift = matrix[0, 0], matrix[:2, 2]
    corners = (boxes.reshape(-1, 2, 2) - shift) / scale
    return np.clip(corners, 0, [width, height]).astype(np.float32).astype(np.int32).reshape(-1, 4)


def _level_boxes(distances: np.ndarray, stride: int) -> np.ndarray:
    """(n, 4, BINS) logits to (n, 4): each side's distance from its cell's corner is its distribution's mean."""
    shares = np.exp(distances - distances.max(axis=2, keepdims=True))
    means = (shares / shares.sum(axis=2, keepdims=True)) @ np.arange(BINS) * stride
    rows, columns = (np.arange(side / stride) * stride for side in INPUT_SHAPE)
    x, y = (grid.reshape(-1) for grid in np.meshgrid(columns, rows))
    return np.stack([x, y, x, y], axis=1) + means * [-1, -1, 1, 1]


def _without_overlaps(boxes: np.ndarray, scores: np.ndarray) -> list[int]:
    """Indices of the surest boxes of which no two overlap much."""
    left, kept = np.argsort(scores)[-KEPT:], []
    while len(left):
        best, left = left[-1], left[:-1]
        kept.append(int(best))
        left = left[_overlap(boxes[left], boxes[best]) <= OVERLAP]
    return kept


def _overlap(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (n, 4) with one (4,)."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)
    area = np.clip(box[2:] - box[:2], 0, None).prod()
    return shared / (areas + area - shared + 1e-5)

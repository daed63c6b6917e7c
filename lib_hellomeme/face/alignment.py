"""The published alignments: similarity matrices from landmarks, and the crop about a face.

Formulas: HelloMeme `utils.py` and `tools/utils.py`. Landmarks are (n, 2) px, matrices (2, 3) map px to px.
"""

from __future__ import annotations

import cv2
import numpy as np

CROP_RATIO = 3.0  # side of the published crop in sizes of the landmarks
CROP_SHIFT = 0.115  # how far it lies above the landmarks' centre, in sides

# Rows of the published 222 points: left and right of the picture, as a viewer sees them.
PD_FGC_POINTS = (182, 202, 36, 149, 133)  # both pupils, nose tip, both mouth corners
PD_FGC_TEMPLATE = np.array([[0.3843, 0.27], [0.62, 0.2668], [0.503, 0.4185], [0.406, 0.5273], [0.5977, 0.525]])
FACE_PARTS_POINTS = (33, 74, 96, 133, 149)  # nose bridge, both outer eye corners, both mouth corners
FACE_PARTS_TEMPLATE = np.array(
    [
        [0.50951539, 0.40128625],
        [0.29259476, 0.40203411],
        [0.72196212, 0.40857479],
        [0.63420714, 0.71678643],
        [0.38437035, 0.71723224],
    ]
)

# What each part spans: the eye at the left of the picture with its brow, the other one, the mouth.
FACE_PARTS_SPANS = (
    (*range(48, 60), *range(74, 95)),
    (*range(61, 73), *range(96, 117)),
    (*range(118, 149),),
)


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The (d, d + 1) similarity that takes (n, d) source points closest to the target points (least squares).

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991, eq. 38-42.
    """
    dimensions = source.shape[1]
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    covariance = (target - target_mean).T @ (source - source_mean) / len(source)
    left, values, right = np.linalg.svd(covariance)
    signs = np.ones(dimensions)
    signs[-1] = np.sign(np.linalg.det(left) * np.linalg.det(right)) or 1.0
    rotation = left @ np.diag(signs) @ right
    scale = values @ signs / source.var(axis=0).sum()
    return np.column_stack([scale * rotation, target_mean - scale * rotation @ source_mean])


def pd_fgc_matrix(points: np.ndarray, size: int = 224) -> np.ndarray:
    """(5, 2) px in the order of PD_FGC_POINTS to the crop that the PD-FGC motion encoder takes."""
    return umeyama(points, PD_FGC_TEMPLATE * size)


def face_parts_matrix(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """(5, 2) px in the order of FACE_PARTS_POINTS to the upright face that the face parts are cut from."""
    return umeyama(points, FACE_PARTS_TEMPLATE * [width, height])


def bounding_box_matrix(landmarks: np.ndarray, degrees: float, size: int, expand_ratio: float) -> np.ndarray:
    """To a square of `size` px that holds the landmarks, turned counterclockwise, with a margin of expand_ratio."""
    centre = (landmarks.min(axis=0) + landmarks.max(axis=0)) / 2
    upright = _transform(landmarks, _turn(centre, degrees, 1.0))
    scale = size / np.ptp(upright, axis=0).max() * (1.0 - expand_ratio)
    matrix = _turn(centre, degrees, scale)
    placed = _transform(landmarks, matrix)
    matrix[:, 2] += size / 2 - (placed.min(axis=0) + placed.max(axis=0)) / 2
    return matrix


def box_matrix(box: np.ndarray, size: int, expand_ratio: float) -> np.ndarray:
    """To a square of `size` px that holds the box (4,), upright, with a margin of expand_ratio."""
    centre = (box[:2] + box[2:]) / 2
    matrix = _turn(centre, 0.0, size / (box[2:] - box[:2]).max() * (1 - expand_ratio))
    matrix[:, 2] += size / 2 - centre
    return matrix


def crop_window(boxes: np.ndarray, picture_size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """The published crop for the landmarks' boxes (frames, 4) of one clip, for an output of any shape.

    picture_size and shape are (width, height). Returns x0, y0, x1, y1 in whole px inside the picture. The window's
    shorter side is CROP_RATIO times the landmarks' mean size, or what fits; a square is exactly as published.
    """
    limits, aspect = np.array(picture_size, np.float64), np.array(shape) / min(shape)  # both (x, y)
    mean_size = (boxes[:, 2:] - boxes[:, :2]).mean(axis=0).max()
    side = min(mean_size * CROP_RATIO, *((limits - 1) / aspect))
    centre = (boxes[:, :2].min(axis=0) + boxes[:, 2:].max(axis=0)) / 2 - [0.0, side * CROP_SHIFT]
    start, stop = centre - side * aspect / 2, centre + side * aspect / 2
    stop -= np.minimum(start, 0.0)
    start = np.maximum(start, 0.0)
    over = stop >= limits
    start -= np.where(over, stop - limits + 1, 0.0)
    stop = np.where(over, limits - 1, stop)
    whole = np.floor((stop - start) / aspect).min() * aspect
    middle = (start + stop) / 2
    x0, y0 = (middle - whole / 2).astype(int).tolist()
    x1, y1 = (middle + whole / 2).astype(int).tolist()
    return x0, y0, x1, y1


def _turn(centre: np.ndarray, degrees: float, scale: float) -> np.ndarray:
    return cv2.getRotationMatrix2D((float(centre[0]), float(centre[1])), degrees, scale)


def _transform(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]

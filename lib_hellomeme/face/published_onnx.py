"""The published face models through onnxruntime: boxes, 222 landmarks, head pose and ARKit coefficients.

Their inputs are made exactly as the published code makes them (HelloMeme `tools/hello_face_alignment.py`,
`hello_camera_demo.py`, `hello_3dmm.py`, `hello_arkit.py`, `utils.py`), with one difference: the published code cuts a
whole clip by one window, which needs all frames before the first; here every frame is cut by its own face's window, as
the published code does with a single picture. That moves only where pixels are resampled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from lib_hellomeme.errors import CheckpointError, DependencyError, MissingFileError
from lib_hellomeme.face.alignment import bounding_box_matrix, box_matrix, crop_window
from lib_hellomeme.face.camera import FOCAL_LENGTH, FOCAL_SIZE, head_translation
from lib_hellomeme.face.extractor import Finder
from lib_hellomeme.face.published_detector import BINS, CELLS, INPUT_SHAPE, STRIDES, detector_input, face_boxes
from lib_hellomeme.face.published_points import ANCHOR_ROWS, LEFT_TEMPLE, POINTS, RIGHT_TEMPLE, Smoother, roll_degrees
from lib_hellomeme.face.track import ARKIT_NAMES, FaceFrame

FILES = ("hello_face_det.onnx", "hello_face_landmark.onnx", "hello_3dmm.onnx", "hello_arkit_blendshape.onnx")
REPOSITORY = "https://huggingface.co/songkey/hello_group_facemodel"

LANDMARK_SIZE, HEAD_SIZE = 128, 224  # px of the networks' inputs
LANDMARK_MARGIN, POSE_MARGIN, EXPRESSION_MARGIN = 0.15, 0.35, 0.15
REPEATS = 3  # of the landmark network, each about the last result
LEAST_PROBABILITY = 0.0001
SMALLEST_FACE = 96  # px of its landmarks
LARGEST_DOUBLED = 2048  # px a side
HALF = np.array([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]])
SAME_FACE = 0.12  # intersection over union
ANGLES, TRANSLATION = slice(1168, 1171), slice(1198, 1201)  # in the 3DMM's coefficients, after 526 + 203 + 439
CROP_SIZE = FOCAL_SIZE


# Each file's input (height, width) and the numbers in its outputs.
SHAPES: dict[str, tuple[tuple[int, int], tuple[int, ...]]] = {
    FILES[0]: (INPUT_SHAPE, (*CELLS, *(4 * BINS * cells for cells in CELLS))),
    FILES[1]: ((LANDMARK_SIZE, LANDMARK_SIZE), (2 * POINTS, 2, 1)),
    FILES[2]: ((HEAD_SIZE, HEAD_SIZE), (TRANSLATION.stop,)),
    FILES[3]: ((HEAD_SIZE, HEAD_SIZE), (len(ARKIT_NAMES),)),
}

Network = Callable[[np.ndarray], list[np.ndarray]]  # (1, 3, height, width) float32 to the outputs


class Networks(NamedTuple):
    """In the order of FILES."""

    detect: Network
    landmarks: Network
    pose: Network
    expression: Network


class PublishedOnnx:
    """Measures everything that the published networks are told."""

    name = "published onnx"
    measured = frozenset(ARKIT_NAMES)
    by_distances = False

    def __init__(self, models: Path | None = None) -> None:
        """Raises MissingFileError, DependencyError without onnxruntime, CheckpointError for files that are not these
        networks."""
        paths = _paths(models)
        missing = [name for name in FILES if name not in paths]
        if missing:
            where = models or "the models folder"
            raise MissingFileError(f"{missing[0]} is not in {where}: get it from {REPOSITORY}")
        self._networks = _load(tuple((paths[name], paths[name].stat().st_mtime_ns) for name in FILES))

    @staticmethod
    def present(models: Path | None) -> bool:
        return bool(_paths(models))

    def faces(self, picture: np.ndarray) -> list[FaceFrame]:
        with self.follow() as find:
            return find(picture, Fraction(0))

    @contextlib.contextmanager
    def follow(self, faces: int = 0) -> Iterator[Finder]:
        """All faces, however many. Where there is none, as the published code leaves out small ones, it looks again in
        the picture at twice the size."""
        plain, doubled = self._finder(), self._finder()

        def find(picture: np.ndarray, time: Fraction) -> list[FaceFrame]:
            height, width = picture.shape[:2]
            found = plain(picture, time)
            if found or max(height, width) > LARGEST_DOUBLED:
                return found
            larger = cv2.resize(picture, (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC)
            return [face.transformed(HALF, width, height) for face in doubled(larger, time)]

        yield find

    def _finder(self) -> Finder:
        """Smoothed as published, by two passes: the second starts from the boxes of the first, whose detector's boxes
        are less exact; both look at each frame in turn."""
        first, second = Tracker(self._networks), Tracker(self._networks)

        def find(picture: np.ndarray, time: Fraction) -> list[FaceFrame]:
            bgr = np.ascontiguousarray(picture[..., ::-1])
            started = [tracked.box for tracked in first.find(bgr)]
            tracks = second.find(bgr, started) if started else []
            tracks = sorted(tracks, key=lambda tracked: _area(tracked.box), reverse=True)
            return [replace(read_face(self._networks, bgr, tracked.points), time=time) for tracked in tracks]

        return find


def read_face(networks: Networks, picture: np.ndarray, points: np.ndarray) -> FaceFrame:
    """A BGR picture (H, W, 3) and the landmarks (222, 2) px in it to pose and coefficients, in the picture's px."""
    height, width = picture.shape[:2]
    box = np.concatenate([points.min(axis=0), points.max(axis=0)])
    x0, y0, x1, y1 = crop_window(box[None], (width, height), (1, 1))
    crop = cv2.resize(picture[y0:y1, x0:x1], (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_CUBIC)
    scale = CROP_SIZE / np.array([x1 - x0, y1 - y0], np.float64)
    inside = (points - [x0, y0]) * scale
    rotation, translation = _head(networks, crop, inside)
    frame = FaceFrame(
        time=Fraction(0),
        width=CROP_SIZE,
        height=CROP_SIZE,
        found=True,
        rotation=rotation,
        translation=translation,
        coefficients=_expression(networks, crop, inside),
        box=np.concatenate([inside.min(axis=0), inside.max(axis=0)]),
        anchors={name: inside[list(rows)] for name, rows in ANCHOR_ROWS.items()},
    )
    back = np.column_stack([np.diag(1 / scale), [x0, y0]])
    return frame.transformed(back, width, height)


def _head(networks: Networks, crop: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (3,) and translation (3,) in a square BGR picture: the network sees the face alone, in RGB."""
    matrix = bounding_box_matrix(points, 0.0, HEAD_SIZE, POSE_MARGIN)
    face = cv2.warpAffine(crop, matrix, (HEAD_SIZE, HEAD_SIZE))[..., ::-1]
    coefficients = networks.pose(_tensor(face))[0].reshape(-1).astype(np.float64)
    x, y, z = coefficients[TRANSLATION]
    # From the face's picture to the crop: its middle is the landmarks' middle, its px are 1 / scale of the crop's.
    scale = matrix[0, 0]
    unit = FOCAL_LENGTH / -z  # px of the face's picture
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    origin = middle + np.array([x, -y]) * unit / scale
    return coefficients[ANGLES], head_translation(origin, unit / scale, *crop.shape[1::-1])


def _expression(networks: Networks, crop: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The 51 coefficients, as the network gives them."""
    matrix = bounding_box_matrix(points, roll_degrees(points), HEAD_SIZE, EXPRESSION_MARGIN)
    return networks.expression(_tensor(cv2.warpAffine(crop, matrix, (HEAD_SIZE, HEAD_SIZE))))[0].reshape(-1)


def _tensor(picture: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) to float32 (1, 3, H, W) in [0, 1]."""
    return picture.transpose(2, 0, 1)[None].astype(np.float32) / 255


@dataclass(eq=False)
class Tracked:
    """One face that is followed."""

    box: np.ndarray  # (4,) px: the detector's, then the landmarks'
    size: float  # px that movements are measured by; turned heads move less
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))  # (222, 2) px, none in the first frame
    smooth: Smoother = field(default_factory=Smoother)


class Tracker:
    """Every face that the detector has found since it began, until it is lost: call `find` for each frame in order."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self._tracks: list[Tracked] = []

    def find(self, picture: np.ndarray, boxes: Sequence[np.ndarray] = ()) -> list[Tracked]:
        """BGR uint8 (H, W, 3) to the faces in it. boxes: taken instead of the detector's where none is followed yet."""
        if self._tracks or not len(boxes):
            boxes = list(self._detect(picture))
        self._tracks += [Tracked(box, float(np.hypot(*(box[2:] - box[:2])))) for box in boxes]
        dropped = {index for index, tracked in enumerate(self._tracks) if not self._update(picture, tracked)}
        _drop_doubles(self._tracks, dropped)
        self._tracks = [tracked for index, tracked in enumerate(self._tracks) if index not in dropped]
        return self._tracks

    def _detect(self, picture: np.ndarray) -> np.ndarray:
        tensor, matrix = detector_input(picture)
        outputs = self._networks.detect(tensor)
        levels = len(STRIDES)
        return face_boxes(outputs[:levels], outputs[levels:], matrix, picture.shape[1], picture.shape[0])

    def _update(self, picture: np.ndarray, tracked: Tracked) -> bool:
        """Finds the landmarks of this frame. False where there is no face any more, or one that is too small."""
        if len(tracked.points):
            matrix = _landmark_matrix(tracked.points, roll_degrees(tracked.points))
        else:
            matrix = box_matrix(tracked.box, LANDMARK_SIZE, LANDMARK_MARGIN)
        points, angles, probability = self._landmarks(picture, matrix)
        for _ in range(REPEATS - 1):
            matrix = _landmark_matrix(points, angles[2])
            points, angles, probability = self._landmarks(picture, matrix)
        if probability < LEAST_PROBABILITY:
            return False
        tracked.points = points = tracked.smooth(points, tracked.size)
        tracked.box = np.concatenate([points.min(axis=0), points.max(axis=0)])
        turned = abs(angles[0]) + 0.6 * abs(angles[1])
        tracked.size = float(np.linalg.norm(points[RIGHT_TEMPLE] - points[LEFT_TEMPLE])) * (1 + turned / 18)
        return bool((tracked.box[2:] - tracked.box[:2]).min() >= SMALLEST_FACE)

    def _landmarks(self, picture: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, tuple[float, ...], float]:
        """Points (222, 2) px, pitch, yaw and roll in degrees, and the probability of a face."""
        face = cv2.warpAffine(picture, matrix, (LANDMARK_SIZE, LANDMARK_SIZE))
        found, angles, probability = self._networks.landmarks(_tensor(face))
        points = found.reshape(2, POINTS).T * np.float32(LANDMARK_SIZE)
        pitch, yaw = np.degrees(angles.reshape(-1)[:2]).tolist()
        back = cv2.invertAffineTransform(matrix)
        placed = cv2.transform(points[:, None], back)[:, 0]
        return placed, (pitch, yaw, roll_degrees(points)), float(probability.reshape(-1)[0])


def _landmark_matrix(points: np.ndarray, degrees: float) -> np.ndarray:
    return bounding_box_matrix(points, degrees, LANDMARK_SIZE, LANDMARK_MARGIN)


def _drop_doubles(tracks: list[Tracked], dropped: set[int]) -> None:
    """Of two that are the same face the smaller one, of equals the later one, joins the dropped."""
    for one, tracked in enumerate(tracks):
        if one in dropped:
            continue
        for other, rival in enumerate(tracks):
            if other != one and other not in dropped and _overlap(tracked.box, rival.box) > SAME_FACE:
                dropped.add(one if _area(tracked.box) < _area(rival.box) else other)


def _area(box: np.ndarray) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _overlap(box: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union."""
    sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    shared = float(np.maximum(sides, 0).prod())
    return shared / (_area(box) + _area(other) - shared) if shared else 0.0


def _paths(models: Path | None) -> dict[str, Path]:
    """Those of FILES that are in the folder or below it."""
    if models is None or not models.is_dir():
        return {}
    return {path.name: path for path in sorted(models.rglob("hello_*.onnx")) if path.name in FILES}


@lru_cache(maxsize=1)
def _load(stamps: tuple[tuple[Path, int], ...]) -> Networks:
    """The networks of FILES. The times of change make a changed file a new question."""
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError(
            "onnxruntime is not installed, which the published face models need: pip install onnxruntime"
        ) from error
    return Networks(*(_network(onnxruntime, path, *SHAPES[path.name]) for path, _ in stamps))


def _network(onnxruntime: Any, path: Path, side: tuple[int, int], sizes: tuple[int, ...]) -> Network:
    """Tried once, so that a wrong file is told before it is used."""
    devices = {"CUDAExecutionProvider", "CPUExecutionProvider"}
    providers = [name for name in onnxruntime.get_available_providers() if name in devices]
    try:
        session = onnxruntime.InferenceSession(str(path), providers=providers)
        entry = session.get_inputs()[0].name

        def run(tensor: np.ndarray) -> list[np.ndarray]:
            return session.run(None, {entry: tensor})

        found = tuple(output.size for output in run(np.zeros((1, 3, *side), np.float32)))
    except Exception as error:  # onnxruntime has a class of its own for every reason
        raise CheckpointError(f"{path.name} is damaged or no face model: download it again") from error
    if any(have < need for have, need in zip(found, sizes, strict=False)) or len(found) < len(sizes):
        raise CheckpointError(f"{path.name} is another model than the published one: download it from {REPOSITORY}")
    return run

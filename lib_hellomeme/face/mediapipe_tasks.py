"""MediaPipe Tasks' face landmarker: landmarks, all ARKit coefficients and a head pose from its own 3D face."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from lib_hellomeme.errors import CheckpointError, DependencyError, MissingFileError
from lib_hellomeme.face.camera import rotation_angles
from lib_hellomeme.face.extractor import Finder
from lib_hellomeme.face.mediapipe_solutions import MAXIMUM_FACES, landmark_points, quiet_native_logs, squared
from lib_hellomeme.face.mesh import frame_of_mesh
from lib_hellomeme.face.track import ARKIT_INDEX, ARKIT_NAMES, FaceFrame

FILE = "face_landmarker.task"
ADDRESS = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
)


class MediaPipeTasks:
    """Needs FILE. Its detector sees faces that are near; small ones in large pictures are MediaPipe solutions' part."""

    name = "mediapipe tasks"
    measured = frozenset(ARKIT_NAMES)
    by_distances = False

    def __init__(self, models: Path | None = None) -> None:
        """Raises MissingFileError, DependencyError without mediapipe, CheckpointError for a damaged file."""
        path = _path(models)
        if path is None:
            raise MissingFileError(f"{FILE} is not in {models or 'the models folder'}: get it from {ADDRESS}")
        self._path = path
        self._parts = _import_tasks()
        with self._landmarker(self._parts.mode.IMAGE, 1):
            pass

    @staticmethod
    def present(models: Path | None) -> bool:
        return _path(models) is not None and find_spec("mediapipe") is not None

    def faces(self, picture: np.ndarray) -> list[FaceFrame]:
        with self._landmarker(self._parts.mode.IMAGE, MAXIMUM_FACES) as landmarker, quiet_native_logs():
            return self._frames(picture, Fraction(0), landmarker.detect)

    @contextlib.contextmanager
    def follow(self, faces: int) -> Iterator[Finder]:
        with self._landmarker(self._parts.mode.VIDEO, faces) as landmarker:
            last = -1

            def find(picture: np.ndarray, time: Fraction) -> list[FaceFrame]:
                nonlocal last
                last = max(last + 1, round(time * 1000))  # milliseconds, which have to grow
                return self._frames(picture, time, lambda image: landmarker.detect_for_video(image, last))

            yield find

    @contextlib.contextmanager
    def _landmarker(self, mode: Any, faces: int) -> Iterator[Any]:
        parts = self._parts
        options = parts.options(
            base_options=parts.base(model_asset_buffer=self._path.read_bytes()),
            running_mode=mode,
            num_faces=faces,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
        )
        with contextlib.ExitStack() as stack:
            with quiet_native_logs():
                try:
                    landmarker = stack.enter_context(parts.landmarker.create_from_options(options))
                except (RuntimeError, ValueError) as error:
                    raise CheckpointError(f"{FILE} is damaged or no face landmarker: get it from {ADDRESS}") from error
            yield landmarker

    def _frames(self, picture: np.ndarray, time: Fraction, detect: Callable[[Any], Any]) -> list[FaceFrame]:
        square = np.ascontiguousarray(squared(picture))
        result = detect(self._parts.image(image_format=self._parts.rgb, data=square))
        found = zip(result.face_landmarks, result.face_blendshapes, result.facial_transformation_matrixes, strict=True)
        height, width = picture.shape[:2]
        frames = []
        for landmarks, shapes, matrix in found:
            frame = frame_of_mesh(landmark_points(landmarks, square.shape[0]), width, height, time)
            rotation = rotation_angles(seen_from_straight_ahead(np.asarray(matrix)).T)
            frames.append(replace(frame, rotation=rotation, coefficients=coefficients(shapes)))
        return sorted(frames, key=_area, reverse=True)


def seen_from_straight_ahead(matrix: np.ndarray) -> np.ndarray:
    """MediaPipe's (4, 4) face pose to the rotation (3, 3) that a camera pointed at the face sees, for column vectors.

    Its camera looks along -z at the picture's middle, with x to the right and y up, so that a face at the picture's
    side, turned to the camera, has a rotation there. The published network sees only a crop about the face.
    """
    towards = matrix[:3, 3] / np.linalg.norm(matrix[:3, 3])
    axis, cosine = np.cross(towards, [0.0, 0.0, -1.0]), -towards[2]
    skew = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn = np.eye(3) + skew + skew @ skew / (1.0 + cosine)  # Rodrigues' formula for the shortest way
    left, _, right = np.linalg.svd(matrix[:3, :3])  # it may hold a scale
    return turn @ left @ right


def coefficients(shapes: Any) -> np.ndarray:
    """MediaPipe's categories, which bear ARKit's names, to the 51 of ARKIT_NAMES."""
    values = np.zeros(len(ARKIT_NAMES))
    for shape in shapes:
        if shape.category_name in ARKIT_INDEX:
            values[ARKIT_INDEX[shape.category_name]] = shape.score
    return values


def _area(frame: FaceFrame) -> float:
    assert frame.box is not None
    return float((frame.box[2:] - frame.box[:2]).prod())


def _path(models: Path | None) -> Path | None:
    return None if models is None else next(iter(sorted(models.rglob(FILE))), None)


def _import_tasks() -> SimpleNamespace:
    try:
        with quiet_native_logs():
            import mediapipe
            from mediapipe.tasks import python as tasks
            from mediapipe.tasks.python import vision
    except ImportError as error:
        raise DependencyError(f"mediapipe is not installed, which {FILE} needs: install mediapipe==0.10.21") from error
    return SimpleNamespace(
        image=mediapipe.Image,
        rgb=mediapipe.ImageFormat.SRGB,
        base=tasks.BaseOptions,
        mode=vision.RunningMode,
        options=vision.FaceLandmarkerOptions,
        landmarker=vision.FaceLandmarker,
    )

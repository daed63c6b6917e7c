"""MediaPipe's older `solutions`, whose models lie in the wheel (up to 0.10.21): works without any download."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from lib_hellomeme.errors import DependencyError
from lib_hellomeme.face.expression import MEASURED
from lib_hellomeme.face.extractor import Finder
from lib_hellomeme.face.landmarks import FACE_SPAN
from lib_hellomeme.face.mesh import frame_of_mesh
from lib_hellomeme.face.track import FaceFrame

MAXIMUM_FACES = 10
CROP_MARGIN = 0.75  # of a detected face's size, added on each side before the mesh is fitted
PARTS_OF_A_SIDE = (1, 2, 4)  # views that the detector is shown, until one holds a face
SMALLEST_CROP = 256  # px; smaller crops are enlarged

# Native log lines: "W0000 00:00:1795180533.914518 6118 file.cc:114] ..." and the like.
_NATIVE_LOG = re.compile(rb"^([IWEF]\d{4} .*\]|(INFO|WARNING): (Created TensorFlow|All log messages before absl))")
_STDERR = threading.RLock()


class MediaPipeSolutions:
    """FaceMesh with irises; a longer-range detector finds the faces that FaceMesh's own misses."""

    name = "mediapipe solutions"
    measured = MEASURED
    by_distances = True

    def __init__(self, models: Path | None = None) -> None:
        """Raises DependencyError where mediapipe is missing or too new. Needs no model files."""
        self._solutions = import_solutions()

    @staticmethod
    def present(models: Path | None) -> bool:
        return find_spec("mediapipe") is not None

    def faces(self, picture: np.ndarray) -> list[FaceFrame]:
        height, width = picture.shape[:2]
        return [frame_of_mesh(mesh, width, height) for mesh in self.meshes(picture)]

    @contextlib.contextmanager
    def follow(self, faces: int) -> Iterator[Finder]:
        """It looks near the last frame's landmarks first; large faces that it has lost it finds again by itself."""
        with self._fitting(faces) as fit:

            def find(picture: np.ndarray, time: Fraction) -> list[FaceFrame]:
                height, width = picture.shape[:2]
                meshes = sorted(fit(picture), key=_area, reverse=True)
                return [frame_of_mesh(mesh, width, height, time) for mesh in meshes]

            yield find

    def meshes(self, picture: np.ndarray) -> list[np.ndarray]:
        """RGB uint8 (H, W, 3) to the meshes of all faces, the largest first.

        Each is (478, 3): x right, y down and z away from the camera, all in px; z is relative to the head's middle.
        """
        with quiet_native_logs():
            found = self._fit(picture)
            for box in self._detect(picture):
                if not any(_covers(mesh, box) for mesh in found):
                    found += self._fit_crop(picture, box)[:1]
            if not found:  # a face that fills the picture is found once there is room around it
                height, width = picture.shape[:2]
                found = self._fit_crop(picture, np.array([0.0, 0.0, width, height]))
        return sorted(found, key=_area, reverse=True)

    @contextlib.contextmanager
    def _fitting(self, faces: int) -> Iterator[Callable[[np.ndarray], list[np.ndarray]]]:
        """The function from a picture to the meshes of up to `faces` faces, which remembers those of the last one."""
        with contextlib.ExitStack() as stack:
            with quiet_native_logs():  # its threads talk while it starts, until a first picture went through
                mesh = stack.enter_context(
                    self._solutions.face_mesh.FaceMesh(refine_landmarks=True, max_num_faces=faces)
                )
                mesh.process(np.zeros((64, 64, 3), np.uint8))
            yield lambda picture: _process(mesh, picture)

    def _fit(self, picture: np.ndarray) -> list[np.ndarray]:
        with self._fitting(MAXIMUM_FACES) as fit:
            first = fit(picture)
            # The second time the region comes from the landmarks instead of the detector, which mends tilted faces.
            return fit(picture) or first if first else []

    def _detect(self, picture: np.ndarray) -> list[np.ndarray]:
        """Boxes (4,) px of the full-range detector, which sees 192 px: in the whole, or else in ever smaller parts."""
        height, width = picture.shape[:2]
        with self._solutions.face_detection.FaceDetection(model_selection=1) as detector:
            for parts in PARTS_OF_A_SIDE:
                side = math.ceil(max(height, width) / parts)
                boxes: list[np.ndarray] = []
                for y0, x0 in itertools.product(_starts(height, side), _starts(width, side)):
                    view = np.ascontiguousarray(picture[y0 : y0 + side, x0 : x0 + side])
                    for box in _boxes(detector.process(view).detections or [], view.shape[1], view.shape[0]):
                        boxes.append(box + np.array([x0, y0, x0, y0]))
                if boxes:
                    return boxes
        return []

    def _fit_crop(self, picture: np.ndarray, box: np.ndarray) -> list[np.ndarray]:
        """The meshes in a square about the box, in the whole picture's px."""
        side = round((box[2:] - box[:2]).max() * (1 + 2 * CROP_MARGIN))
        x0, y0 = np.round((box[:2] + box[2:] - side) / 2).astype(int).tolist()
        left, top = max(-x0, 0), max(-y0, 0)
        inside = picture[max(y0, 0) : y0 + side, max(x0, 0) : x0 + side]
        right, bottom = side - left - inside.shape[1], side - top - inside.shape[0]
        crop = cv2.copyMakeBorder(inside, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(0, 0, 0))
        if side < SMALLEST_CROP:
            crop = cv2.resize(crop, (SMALLEST_CROP, SMALLEST_CROP), interpolation=cv2.INTER_CUBIC)
        return [mesh * (side / crop.shape[0]) + [x0, y0, 0.0] for mesh in self._fit(crop)]


def _process(mesh: Any, picture: np.ndarray) -> list[np.ndarray]:
    square = squared(picture)
    faces = mesh.process(square).multi_face_landmarks or []
    return [landmark_points(face.landmark, square.shape[0]) for face in faces]


def squared(picture: np.ndarray) -> np.ndarray:
    """Black on the right or below: MediaPipe skews tilted faces of other pictures ("only for the square ROI")."""
    height, width = picture.shape[:2]
    side = max(height, width)
    if height == width:
        return picture
    return cv2.copyMakeBorder(picture, 0, side - height, 0, side - width, cv2.BORDER_CONSTANT, value=(0, 0, 0))


def landmark_points(landmarks: Any, side: int) -> np.ndarray:
    """MediaPipe's landmarks to (n, 3) px."""
    return np.array([[point.x, point.y, point.z] for point in landmarks]) * side


def _starts(length: int, side: int) -> list[int]:
    """Where views of `side` px begin that overlap by half."""
    return list(range(0, max(length - side, 0) + 1, max(side // 2, 1)))


def _boxes(detections: Any, width: int, height: int) -> list[np.ndarray]:
    boxes = [detection.location_data.relative_bounding_box for detection in detections]
    corners = [[box.xmin, box.ymin, box.xmin + box.width, box.ymin + box.height] for box in boxes]
    return [np.array(corner) * [width, height, width, height] for corner in corners]


def _covers(mesh: np.ndarray, box: np.ndarray) -> bool:
    """The middle of the box lies in the mesh."""
    middle = (box[:2] + box[2:]) / 2
    low, high = mesh[:, :2].min(axis=0), mesh[:, :2].max(axis=0)
    return bool((low <= middle).all() and (middle <= high).all())


def _area(mesh: np.ndarray) -> float:
    return float(np.ptp(mesh[list(FACE_SPAN), :2], axis=0).prod())


def import_solutions() -> ModuleType:
    try:
        with quiet_native_logs():
            import mediapipe
    except ImportError as error:
        raise DependencyError("mediapipe is not installed; install mediapipe==0.10.21 to find faces") from error
    if not hasattr(mediapipe, "solutions"):
        raise DependencyError(f"mediapipe {mediapipe.__version__} has no face models; install mediapipe==0.10.21")
    return mediapipe.solutions


@contextlib.contextmanager
def quiet_native_logs() -> Iterator[None]:
    """Drops MediaPipe's native log lines, which no option silences; passes on what else is written to stderr."""
    with _STDERR, tempfile.TemporaryFile() as log:
        sys.stderr.flush()
        original = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            log.seek(0)
            kept = b"".join(line for line in log if not _NATIVE_LOG.match(line))
            if kept:
                os.write(original, kept)
            os.close(original)

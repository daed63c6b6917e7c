"""insightface: boxes, sparse landmarks, and which faces are the same person's.

Interface: `FaceAnalysis` of the package insightface (`app/face_analysis.py`), whose faces hold `bbox` (4,), `kps`
(5, 2), with a landmark model `landmark_3d_68` (68, 3), all in px of a BGR picture, and with a recognition model
`normed_embedding` (512,). Its own `pose` is not used: the head is fitted to the landmarks as with MediaPipe's, so that
angles mean the same. The model files may be used for research only, says their page.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from lib_hellomeme.errors import CheckpointError, DependencyError, FaceError, MissingFileError
from lib_hellomeme.face.expression import measurable
from lib_hellomeme.face.extractor import Finder
from lib_hellomeme.face.landmarks import ALL_POINTS
from lib_hellomeme.face.mesh import frame_of_mesh
from lib_hellomeme.face.track import FaceFrame
from lib_hellomeme.face.which import centre, size

PACKS = ("buffalo_l", "antelopev2", "buffalo_m", "buffalo_s", "buffalo_sc")
MODULES = ("detection", "landmark_3d_68", "recognition")
DETECTED_SIZE = (640, 640)

# The 68 points of iBUG (Sagonas et al., "300 Faces in-the-Wild Challenge", ICCVW 2013, figure 1) among MediaPipe's 478,
# as in the tables people use (PeizhiYan/Mediapipe_2_Dlib_Landmarks), where that gives one landmark. The jaw between
# temples and chin is left out: on it the points of the two sets lie differently far along.
IBUG_68: dict[int, int] = {
    0: 127,
    8: 152,
    16: 356,
    **dict(zip(range(17, 27), (70, 63, 105, 66, 107, 336, 296, 334, 293, 300), strict=True)),
    27: 168,
    28: 197,
    29: 5,
    30: 1,
    32: 97,
    33: 2,
    34: 326,
    **dict(zip(range(36, 42), (33, 160, 158, 133, 153, 144), strict=True)),
    **dict(zip(range(42, 48), (362, 385, 387, 263, 373, 380), strict=True)),
    **dict(zip(range(48, 60), (61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91), strict=True)),
    **dict(zip(range(60, 68), (78, 81, 13, 311, 308, 402, 14, 178), strict=True)),
}
# The detector's five (`kps`): the eyes, whose middles the irises stand for, the nose's tip, the mouth's corners.
FIVE: dict[int, int] = {0: 468, 1: 473, 2: 1, 3: 61, 4: 291}
_NOT_FITTED = {*range(48, 68), 37, 38, 40, 41, 43, 44, 46, 47}  # rows of IBUG_68 that an expression moves


class InsightFace:
    """Measures hardly any expression: its points are too few."""

    name = "insightface"
    by_distances = True

    def __init__(self, models: Path | None = None) -> None:
        """Raises DependencyError without the package, MissingFileError without a pack of models, CheckpointError for
        damaged ones. Nothing is downloaded."""
        if find_spec("insightface") is None:
            raise DependencyError("insightface is not installed: install it with pip install insightface")
        root, pack = _pack(models)
        self._analysis = _analysis(root, pack)
        dense = "landmark_3d_68" in self._analysis.models
        self.measured = measurable(IBUG_68.values()) if dense else frozenset()

    @staticmethod
    def present(models: Path | None) -> bool:
        return find_spec("insightface") is not None

    def faces(self, picture: np.ndarray) -> list[FaceFrame]:
        return self._frames(picture, Fraction(0))

    @contextlib.contextmanager
    def follow(self, faces: int) -> Iterator[Finder]:
        """Every frame by itself."""
        yield self._frames

    def likeness(self, reference: np.ndarray, picture: np.ndarray, faces: list[FaceFrame]) -> list[float]:
        """The cosine between the embeddings of the reference's largest face and of each of these in the picture; -1 for
        one that insightface does not find. Raises FaceError where there is no face in the reference, MissingFileError
        without a recognition model."""
        if "recognition" not in self._analysis.models:
            raise MissingFileError("this pack of insightface has no recognition model: get buffalo_l to compare faces")
        known = self._found(reference)
        if not known:
            raise FaceError("insightface finds no face in the reference to compare with: choose one by size or place")
        others = self._found(picture)
        return [self._likeness(known[0], face, others) for face in faces]

    def _likeness(self, known: Any, face: FaceFrame, others: list[Any]) -> float:
        def away(other: Any) -> float:
            return float(np.linalg.norm((other.bbox[:2] + other.bbox[2:]) / 2 - centre(face)))

        nearest = min(others, key=away, default=None)
        if nearest is None or away(nearest) > size(face) / 2:
            return -1.0
        return float(nearest.normed_embedding @ known.normed_embedding)

    def _found(self, picture: np.ndarray) -> list[Any]:
        """insightface's faces, the largest first."""
        found = self._analysis.get(np.ascontiguousarray(picture[..., ::-1]))
        return sorted(found, key=lambda face: float((face.bbox[2:] - face.bbox[:2]).prod()), reverse=True)

    def _frames(self, picture: np.ndarray, time: Fraction) -> list[FaceFrame]:
        height, width = picture.shape[:2]
        return [frame_of_points(face, width, height, time) for face in self._found(picture)]


def frame_of_points(face: Any, width: int, height: int, time: Fraction) -> FaceFrame:
    """From a face as insightface gives it."""
    dense = getattr(face, "landmark_3d_68", None)
    if dense is not None:
        fitted = np.array([index for row, index in IBUG_68.items() if row not in _NOT_FITTED])
        return frame_of_mesh(mesh_of_points(dense, IBUG_68), width, height, time, used=fitted)
    mesh = mesh_of_points(face.kps, FIVE)
    return frame_of_mesh(mesh, width, height, time, np.asarray(face.bbox, np.float64), np.array([*FIVE.values()]))


def mesh_of_points(points: np.ndarray, table: dict[int, int]) -> np.ndarray:
    """Points (n, 2 or more) px to the landmarks (478, 3) px that the table names by row; the others are NaN."""
    mesh = np.full((ALL_POINTS, 3), np.nan)
    mesh[list(table.values()), :2] = points[list(table), :2]
    mesh[list(table.values()), 2] = 0.0
    return mesh


def _pack(models: Path | None) -> tuple[Path, str]:
    """Where a pack of models lies: in our folder, in the webui's, or in insightface's own."""
    ours = () if models is None else (models / "insightface", models.parent / "insightface")
    for root in (*ours, Path.home() / ".insightface"):
        for pack in PACKS:
            if any((root / "models" / pack).glob("*.onnx")):
                return root, pack
    raise MissingFileError(
        "insightface has no models here: unpack buffalo_l.zip of https://github.com/deepinsight/insightface/releases "
        "into ~/.insightface/models/buffalo_l (for research only, says its page)"
    )


@lru_cache(maxsize=1)
def _analysis(root: Path, pack: str) -> Any:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it loads
            from insightface.app import FaceAnalysis

            analysis = FaceAnalysis(name=pack, root=str(root), allowed_modules=list(MODULES))
            analysis.prepare(ctx_id=0, det_size=DETECTED_SIZE)
    except ImportError as error:
        raise DependencyError(f"insightface cannot be imported ({error}): install it again") from error
    except Exception as error:  # assertions, and whatever onnxruntime raises
        raise CheckpointError(
            f"insightface's models in {root / 'models' / pack} are damaged: get them again"
        ) from error
    return analysis

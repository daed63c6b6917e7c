"""From a picture to a FaceTrack, with whichever extractor is there."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from lib_hellomeme.errors import FaceError
from lib_hellomeme.face.camera import FOCAL_LENGTH, FOCAL_SIZE, head_translation
from lib_hellomeme.face.extractor import Extractor
from lib_hellomeme.face.extractors import open_extractor
from lib_hellomeme.face.insightface_faces import InsightFace
from lib_hellomeme.face.pose import PUBLISHED_OFFSET
from lib_hellomeme.face.track import ARKIT_NAMES, FaceFrame, FaceTrack
from lib_hellomeme.face.which import WhichFace, centre, choose

# A head as in the middle of a published crop: the face fills a third of the side, 0.115 sides below the middle.
DEFAULT_SCALE = FOCAL_SIZE / 3 / PUBLISHED_OFFSET.unit  # px a unit
DEFAULT_TRANSLATION = np.array([0.0, -0.115 * FOCAL_SIZE / DEFAULT_SCALE, -FOCAL_LENGTH / DEFAULT_SCALE])

CHIN_BELOW_ORIGIN = 0.488  # face widths, on the average face
BOX_MARGIN = 0.5  # of the box given by hand, searched on each side of it

FaceBox = tuple[float, float, float, float]  # x0, y0, x1, y1 as fractions of the picture, from the brows to the chin

WARN_NO_FACE = "no face was found; a head in the middle is assumed (give its face box to place it)"
WARN_DRAWING = "no face was recognised in the box; the head is assumed to look straight ahead, with a neutral face"


def track_picture(
    picture: np.ndarray,
    face_box: FaceBox | None = None,
    *,
    which: WhichFace | int = "largest",
    reference: np.ndarray | None = None,
    extractor: str | Extractor = "auto",
    models: Path | None = None,
) -> FaceTrack:
    """RGB uint8 (H, W, 3) to a track of one frame; never fails for want of a face, but warns.

    face_box: only the face in it is taken, and where none is recognised (a drawing), the head's place and size are
    estimated from it. Without both, the head is assumed as in the published crop. which: see `which.choose`; "alike"
    takes the face most like the largest of the `reference` picture. extractor, models: see `open_extractor`. Raises
    DependencyError and CheckpointError where no extractor can be used, FaceError where box or `which` are none.
    """
    height, width = picture.shape[:2]
    opened, warnings = opened_extractor(extractor, models)
    box = None if face_box is None else checked_box(face_box) * [width, height, width, height]
    faces = opened.faces(picture) if box is None else faces_in_box(opened, picture, box)
    if faces:
        frame = faces[choose(faces, which, likeness(picture, faces, which, reference, models))]
        warnings += _several(len(faces), which)
    else:
        frame = assumed_frame(width, height, box=box)
        warnings += (WARN_NO_FACE,) if box is None else (WARN_DRAWING,)
    return FaceTrack(Fraction(1), (frame,), opened.measured if faces else frozenset(), opened.name, warnings)


def opened_extractor(extractor: str | Extractor, models: Path | None) -> tuple[Extractor, tuple[str, ...]]:
    return open_extractor(extractor, models) if isinstance(extractor, str) else (extractor, ())


def likeness(
    picture: np.ndarray,
    faces: list[FaceFrame],
    which: WhichFace | int,
    reference: np.ndarray | None,
    models: Path | None,
) -> list[float] | None:
    """How much each face is like the reference's largest, None where this is not asked. Raises FaceError without a
    reference, DependencyError and MissingFileError without insightface."""
    if which != "alike":
        return None
    if reference is None:
        raise FaceError("there is no reference to compare faces with: give one, or choose a face by size or place")
    if len(faces) == 1:
        return [1.0]
    return InsightFace(models).likeness(reference, picture, faces)


def _several(count: int, which: WhichFace | int) -> tuple[str, ...]:
    if count == 1 or which != "largest":
        return ()
    return (f"{count} faces were found; the largest is taken (choose another by its place or crop the picture)",)


def checked_box(face_box: FaceBox) -> np.ndarray:
    """(4,) within [0, 1]. Raises FaceError where it is no box."""
    box = np.clip(np.array(face_box, np.float64), 0.0, 1.0)
    if box.shape != (4,) or not (box[2:] > box[:2]).all():
        raise FaceError("the face box must be left, top, right, bottom between 0 and 1; draw it again")
    return box


def faces_in_box(extractor: Extractor, picture: np.ndarray, box: np.ndarray) -> list[FaceFrame]:
    """The largest face whose middle lies in the box (4,) px, as a list of at most one."""
    height, width = picture.shape[:2]
    margin = (box[2:] - box[:2]).max() * BOX_MARGIN
    x0, y0 = np.floor(np.maximum(box[:2] - margin, 0)).astype(int).tolist()
    x1, y1 = np.ceil(np.minimum(box[2:] + margin, [width, height])).astype(int).tolist()
    moved = np.array([[1.0, 0.0, x0], [0.0, 1.0, y0]])
    found = extractor.faces(np.ascontiguousarray(picture[y0:y1, x0:x1]))
    faces = [face.transformed(moved, width, height) for face in found]
    return [face for face in faces if (box[:2] <= centre(face)).all() and (centre(face) <= box[2:]).all()][:1]


def assumed_frame(width: int, height: int, time: Fraction = Fraction(0), box: np.ndarray | None = None) -> FaceFrame:
    """A neutral head that looks straight ahead, marked as not found: in the box (4,) px where there is one, otherwise
    as in the published crop."""
    neutral = np.zeros(len(ARKIT_NAMES))
    translation = DEFAULT_TRANSLATION if box is None else _translation_of_box(box, width, height)
    return FaceFrame(time, width, height, False, np.zeros(3), translation, neutral, box)


def _translation_of_box(box: np.ndarray, width: int, height: int) -> np.ndarray:
    """By the box's width and lower edge, so that it matters little whether the forehead is in it."""
    face_width = box[2] - box[0]
    origin = np.array([(box[0] + box[2]) / 2, box[3] - face_width * CHIN_BELOW_ORIGIN])
    return head_translation(origin, face_width / PUBLISHED_OFFSET.unit, width, height)

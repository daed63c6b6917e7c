"""From a picture to a FaceTrack, with whichever extractor is there."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from lib_hellomeme.errors import FaceError
from lib_hellomeme.face.camera import FOCAL_LENGTH, FOCAL_SIZE, head_translation
from lib_hellomeme.face.expression import MEASURED
from lib_hellomeme.face.mediapipe_solutions import MediaPipeSolutions
from lib_hellomeme.face.mesh import frame_of_mesh
from lib_hellomeme.face.pose import PUBLISHED_OFFSET
from lib_hellomeme.face.track import ARKIT_NAMES, FaceFrame, FaceTrack

# A head as in the middle of a published crop: the face fills a third of the side, 0.115 sides below the middle.
DEFAULT_SCALE = FOCAL_SIZE / 3 / PUBLISHED_OFFSET.unit  # px a unit
DEFAULT_TRANSLATION = np.array([0.0, -0.115 * FOCAL_SIZE / DEFAULT_SCALE, -FOCAL_LENGTH / DEFAULT_SCALE])

CHIN_BELOW_ORIGIN = 0.488  # face widths, on the average face
BOX_MARGIN = 0.5  # of the box given by hand, searched on each side of it


def track_picture(picture: np.ndarray, face_box: tuple[float, float, float, float] | None = None) -> FaceTrack:
    """RGB uint8 (H, W, 3) to a track of one frame; never fails for want of a face, but warns.

    face_box is x0, y0, x1, y1 as fractions of the picture, around the face from the brows to the chin: only the face
    in it is taken, and where none is recognised (a drawing), the head's place and size are estimated from it. Without
    both, the head is assumed as in the published crop. Raises DependencyError where mediapipe is missing, FaceError
    where the box is none.
    """
    height, width = picture.shape[:2]
    extractor = MediaPipeSolutions()
    box = None if face_box is None else _checked_box(face_box) * [width, height, width, height]
    meshes = extractor.meshes(picture) if box is None else _meshes_in_box(extractor, picture, box)
    if meshes:
        frame, warnings = frame_of_mesh(meshes[0], width, height), _several(len(meshes))
    elif box is not None:
        translation = _translation_of_box(box, width, height)
        frame, warnings = assumed_frame(width, height, Fraction(0), translation, box), (WARN_DRAWING,)
    else:
        frame, warnings = assumed_frame(width, height), (WARN_NO_FACE,)
    return FaceTrack(Fraction(1), (frame,), MEASURED if meshes else frozenset(), extractor.name, warnings)


WARN_NO_FACE = "no face was found; a head in the middle is assumed (give its face box to place it)"
WARN_DRAWING = "no face was recognised in the box; the head is assumed to look straight ahead, with a neutral face"


def _several(count: int) -> tuple[str, ...]:
    return (f"{count} faces were found; the largest is taken (crop the picture to choose another)",) * (count > 1)


def _checked_box(face_box: tuple[float, float, float, float]) -> np.ndarray:
    box = np.clip(np.array(face_box, np.float64), 0.0, 1.0)
    if box.shape != (4,) or not (box[2:] > box[:2]).all():
        raise FaceError("the face box must be left, top, right, bottom between 0 and 1; draw it again")
    return box


def _meshes_in_box(extractor: MediaPipeSolutions, picture: np.ndarray, box: np.ndarray) -> list[np.ndarray]:
    """The largest mesh whose middle lies in the box, as a list of at most one."""
    height, width = picture.shape[:2]
    margin = (box[2:] - box[:2]).max() * BOX_MARGIN
    x0, y0 = np.floor(np.maximum(box[:2] - margin, 0)).astype(int).tolist()
    x1, y1 = np.ceil(np.minimum(box[2:] + margin, [width, height])).astype(int).tolist()
    meshes = [mesh + np.array([x0, y0, 0.0]) for mesh in extractor.meshes(np.ascontiguousarray(picture[y0:y1, x0:x1]))]
    centres = [mesh[:, :2].mean(axis=0) for mesh in meshes]
    inside = [mesh for mesh, c in zip(meshes, centres, strict=True) if (box[:2] <= c).all() and (c <= box[2:]).all()]
    return inside[:1]


def _translation_of_box(box: np.ndarray, width: int, height: int) -> np.ndarray:
    """By the box's width and lower edge, so that it matters little whether the forehead is in it."""
    face_width = box[2] - box[0]
    origin = np.array([(box[0] + box[2]) / 2, box[3] - face_width * CHIN_BELOW_ORIGIN])
    return head_translation(origin, face_width / PUBLISHED_OFFSET.unit, width, height)


def assumed_frame(
    width: int,
    height: int,
    time: Fraction = Fraction(0),
    translation: np.ndarray = DEFAULT_TRANSLATION,
    box: np.ndarray | None = None,
) -> FaceFrame:
    """A neutral head that looks straight ahead, marked as not found."""
    neutral = np.zeros(len(ARKIT_NAMES))
    return FaceFrame(time, width, height, False, np.zeros(3), translation, neutral, box)

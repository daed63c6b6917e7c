"""FaceTrack: what an extractor found, the one format between extractors and the rest, also as a JSON file."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lib_hellomeme.errors import FaceError
from lib_hellomeme.face.camera import head_origin, head_scale, head_translation, rotation_angles, rotation_matrix

FILE_FORMAT = "hellomeme-face-track"
FILE_VERSION = 1

# In the order of Apple's documentation (ARFaceAnchor.BlendShapeLocation), tongueOut left out.
ARKIT_NAMES: tuple[str, ...] = (
    *(f"eye{part}Left" for part in ("Blink", "LookDown", "LookIn", "LookOut", "LookUp", "Squint", "Wide")),
    *(f"eye{part}Right" for part in ("Blink", "LookDown", "LookIn", "LookOut", "LookUp", "Squint", "Wide")),
    *("jawForward", "jawLeft", "jawRight", "jawOpen"),
    *("mouthClose", "mouthFunnel", "mouthPucker", "mouthLeft", "mouthRight"),
    *("mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight"),
    *("mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight"),
    *("mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"),
    *("mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft", "mouthLowerDownRight"),
    *("mouthUpperUpLeft", "mouthUpperUpRight"),
    *("browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    *("cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight"),
)
ARKIT_INDEX: dict[str, int] = {name: index for index, name in enumerate(ARKIT_NAMES)}


@dataclass(frozen=True, eq=False)
class FaceFrame:
    """One face in one picture. All arrays are read-only; points are px from the picture's upper left corner.

    rotation and translation follow the published 3DMM convention (see camera.py); coefficients are the 51 of
    ARKIT_NAMES in [0, 1]. The box spans what the published 222 points span: brows to chin, temple to temple. Raises
    FaceError for values of the wrong shape and for numbers that are not finite.
    """

    time: Fraction  # seconds from the start
    width: int  # px of the picture
    height: int
    found: bool
    rotation: np.ndarray  # (3,)
    translation: np.ndarray  # (3,)
    coefficients: np.ndarray  # (51,)
    box: np.ndarray | None = None  # (4,) x0, y0, x1, y1
    anchors: dict[str, np.ndarray] = field(default_factory=dict)  # name -> (n, 2), see landmarks.ANCHORS
    pd_fgc: np.ndarray | None = None  # (548,)
    face_parts: np.ndarray | None = None  # (3, 1024)

    def __post_init__(self) -> None:
        shapes = {"rotation": (3,), "translation": (3,), "coefficients": (len(ARKIT_NAMES),)}
        optional = {"box": (4,), "pd_fgc": (548,), "face_parts": (3, 1024)}
        shapes |= {name: shape for name, shape in optional.items() if getattr(self, name) is not None}
        for name, shape in shapes.items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), shape))
        anchors = {name: _checked(f"anchor {name}", points, (None, 2)) for name, points in self.anchors.items()}
        object.__setattr__(self, "anchors", anchors)
        if self.width < 1 or self.height < 1:
            raise FaceError(f"a frame of {self.width} x {self.height} px is not a picture")
        if self.translation[2] >= 0:
            raise FaceError("translation[2] must be negative: the head stands before the camera")

    def transformed(self, matrix: np.ndarray, width: int, height: int) -> FaceFrame:
        """The same head in the picture that the (2, 3) affine matrix makes of this one, width x height px.

        Box and anchors map exactly; of the matrix the head takes the closest similarity (as in HelloMeme's
        `crop_transl_to_full_transl`): its origin, scale and roll map exactly, its perspective stays.
        """
        linear = matrix[:, :2]
        scale = math.sqrt(abs(np.linalg.det(linear)))
        turn = math.atan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1])  # clockwise, as y points down
        origin = linear @ head_origin(self.translation, self.width, self.height) + matrix[:, 2]
        new_scale = head_scale(self.translation, self.width, self.height) * scale
        return replace(
            self,
            width=width,
            height=height,
            rotation=self.rotation - [0.0, 0.0, turn],
            translation=head_translation(origin, new_scale, width, height),
            box=None if self.box is None else _bounds(_mapped(_box_corners(self.box), matrix)),
            anchors={name: _mapped(points, matrix) for name, points in self.anchors.items()},
        )


@dataclass(frozen=True, eq=False)
class FaceTrack:
    """One face over the frames of a file; a still picture has one frame."""

    fps: Fraction
    frames: tuple[FaceFrame, ...]
    measured: frozenset[str]  # the coefficients that the extractor can measure; the others are 0
    extractor: str
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = sorted(map(str, set(self.measured) - set(ARKIT_NAMES)))
        if unknown:
            raise FaceError(f"there is no coefficient named {unknown[0]}")

    def save(self, path: str | Path) -> None:
        """Writes JSON, a line a frame; the file appears whole or not at all. Raises FaceError where it cannot be."""
        path = Path(path)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.writelines(_track_to_json(self))
            os.replace(temporary, path)
        except OSError as error:
            raise FaceError(f"{path} cannot be written ({error.strerror}); choose another folder") from error
        finally:
            with suppress(OSError):
                temporary.unlink()

    @staticmethod
    def load(path: str | Path) -> FaceTrack:
        """Reads what `save` wrote, also after editing. Raises FaceError that names the frame and the field."""
        path = Path(path)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise FaceError(f"{path}: there is no such file; choose an existing face track") from error
        except (OSError, ValueError) as error:
            raise FaceError(f"{path.name} is not a face track (no JSON); track the video again") from error
        if not isinstance(data, dict) or data.get("format") != FILE_FORMAT:
            raise FaceError(f"{path.name} is not a face track; make one with the track command")
        if data.get("version") != FILE_VERSION:
            version = data.get("version")
            raise FaceError(f"{path.name} is of version {version}, this program reads {FILE_VERSION}; update it")
        try:
            return _track_from_json(data)
        except FaceError as error:
            raise FaceError(f"{path.name}: {error}") from error


def interpolate_rotation(start: np.ndarray, end: np.ndarray, weight: float) -> np.ndarray:
    """(3,) radians: `start` at weight 0, `end` at 1, along the shortest arc, also beyond 1."""
    if weight in (0.0, 1.0):
        return end if weight else start
    own = rotation_matrix(start)
    arc, _ = cv2.Rodrigues(own.T @ rotation_matrix(end))
    part, _ = cv2.Rodrigues(arc * weight)
    return rotation_angles(own @ part)


def _mapped(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def _box_corners(box: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = box
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _bounds(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def _checked(name: str, values: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """A read-only float64 copy of the shape (None: any length)."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise FaceError(f"{name} is not a table of numbers") from error
    if array.ndim != len(shape) or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True)):
        raise FaceError(f"{name} has the shape {array.shape}, not {shape}")
    if not np.isfinite(array).all():
        raise FaceError(f"{name} holds a number that is not finite")
    array.setflags(write=False)
    return array


def _track_to_json(track: FaceTrack) -> Iterator[str]:
    """In parts: frame by frame it takes neither the time of json's indents nor the memory of a long track's text."""
    header = {
        "format": FILE_FORMAT,
        "version": FILE_VERSION,
        "extractor": track.extractor,
        "fps": str(track.fps),
        "coefficient_names": list(ARKIT_NAMES),
        "measured": [name for name in ARKIT_NAMES if name in track.measured],
        "warnings": list(track.warnings),
    }
    yield json.dumps(header, indent=1).removesuffix("\n}") + ',\n "frames": ['
    for index, frame in enumerate(track.frames):
        yield (",\n  " if index else "\n  ") + json.dumps(_frame_to_json(frame), allow_nan=False)
    yield "\n ]\n}\n"


def _frame_to_json(frame: FaceFrame) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        return value.tolist() if isinstance(value, np.ndarray) else value

    record = {entry.name: plain(getattr(frame, entry.name)) for entry in fields(frame)}
    record["time"] = str(frame.time)
    record["anchors"] = {name: points.tolist() for name, points in frame.anchors.items()}
    for name in ("pd_fgc", "face_parts"):  # too wide to be edited by hand
        value = getattr(frame, name)
        record[name] = None if value is None else base64.b64encode(value.astype("<f4").tobytes()).decode("ascii")
    return record


def _track_from_json(data: dict[str, Any]) -> FaceTrack:
    frames = []
    for index, record in enumerate(_field(data, "frames", list)):
        try:
            frames.append(_frame_from_json(record))
        except FaceError as error:
            raise FaceError(f"frame {index}: {error}") from error
        if index and frames[-1].time < frames[-2].time:
            raise FaceError(f"frame {index}: its time is before that of the frame before it")
    if not frames:
        raise FaceError("there is no frame in it; track the video again")
    fps = _field(data, "fps", Fraction)
    if fps <= 0:
        raise FaceError(f"fps is {fps}; give the frames a second, like 30000/1001")
    return FaceTrack(
        fps=fps,
        frames=tuple(frames),
        measured=_field(data, "measured", frozenset),
        extractor=_field(data, "extractor", str),
        warnings=_field(data, "warnings", tuple),
    )


def _frame_from_json(record: Any) -> FaceFrame:
    if not isinstance(record, dict):
        raise FaceError("it is not a table of fields")
    convert = {"time": Fraction, "width": int, "height": int, "found": bool, "anchors": dict}
    convert |= {"pd_fgc": lambda text: _wide(text, (548,)), "face_parts": lambda text: _wide(text, (3, 1024))}
    return FaceFrame(**{entry.name: _field(record, entry.name, convert.get(entry.name)) for entry in fields(FaceFrame)})


def _field(record: dict[str, Any], name: str, convert: Callable[[Any], Any] | None) -> Any:
    if name not in record:
        raise FaceError(f"the field {name} is missing")
    try:
        return convert(record[name]) if convert else record[name]
    except (TypeError, ValueError, ArithmeticError) as error:
        raise FaceError(f"the field {name} cannot be understood") from error


def _wide(text: str | None, shape: tuple[int, ...]) -> np.ndarray | None:
    return None if text is None else np.frombuffer(base64.b64decode(text), "<f4").reshape(shape)

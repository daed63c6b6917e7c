"""The drawn head in 3D: where skull, hair and features lie, and how they move with the coefficients.

Lengths are face widths in the head frame of face/camera.py: x to the picture's right (the person's left), y up, z to
the camera, the origin between brows and chin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lib_hellomeme.face.camera import head_origin, head_scale, rotation_matrix
from lib_hellomeme.face.track import ARKIT_INDEX, FaceFrame
from lib_hellomeme.training.identity import Identity

# The shipped weights have learned these two. The first is PUBLISHED_OFFSET.unit of face/pose.py.
FACE_WIDTH = 0.1508  # of the average face, in the published units of x and y
CAMERA_DISTANCE = 7.0  # face widths from the head's origin to the eye

EYE_Y, BROW_Y, MOUTH_Y = 0.21, 0.405, -0.215
EYE_X = 0.215
SIDES = {-1: "Right", 1: "Left"}  # sign of x -> the person's side
TORSO_TURN = np.array([0.1, 0.2, 0.2])  # share of the head's rotation that the shoulders take


class View:
    """From the head frame to px, through a camera that looks straight at the head, as face/pose.py's does."""

    def __init__(self, rotation: np.ndarray, face: FaceFrame) -> None:
        self.matrix = rotation_matrix(rotation)
        self.origin = head_origin(face.translation, face.width, face.height)
        self.scale = head_scale(face.translation, face.width, face.height) * FACE_WIDTH  # px a face width

    def __call__(self, points: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
        """(n, 3) face widths to (n, 2) px."""
        turned = self.turned(points)
        nearness = CAMERA_DISTANCE / (CAMERA_DISTANCE - turned[:, 2:])
        return self.origin + turned[:, :2] * nearness * [self.scale, -self.scale]

    def turned(self, points: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
        """(n, 3) points of the head frame along the picture's axes."""
        return np.asarray(points, np.float64) @ self.matrix


class Expression:
    """The coefficients by name; `pair` sums a left and a right one, `side` picks by the sign of x."""

    def __init__(self, coefficients: np.ndarray) -> None:
        self.values = coefficients

    def __call__(self, name: str) -> float:
        return float(self.values[ARKIT_INDEX[name]])

    def side(self, name: str, sign: int) -> float:
        return self(name + SIDES[sign])

    def towards_left(self, name: str) -> float:
        return self(f"{name}Left") - self(f"{name}Right")


class Ellipsoid(NamedTuple):
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]

    def points(self) -> np.ndarray:
        """(n, 3) spread over its surface."""
        return UNIT_SPHERE * self.radii + self.centre


def _unit_sphere() -> np.ndarray:
    latitude, longitude = np.meshgrid(np.linspace(-np.pi / 2, np.pi / 2, 15), np.linspace(0, 2 * np.pi, 33)[:-1])
    across = np.cos(latitude)
    return np.stack([across * np.sin(longitude), np.sin(latitude), across * np.cos(longitude)], axis=-1).reshape(-1, 3)


UNIT_SPHERE = _unit_sphere()


@dataclass(frozen=True)
class Head:
    """The head's parts for one person and one expression."""

    identity: Identity
    expression: Expression

    @property
    def jaw(self) -> float:
        """How far the chin has come down, in face widths."""
        return 0.16 * self.expression("jawOpen")

    @property
    def jaw_shift(self) -> float:
        return 0.06 * self.expression.towards_left("jaw")

    def skull(self) -> np.ndarray:
        """(n, 3) points whose convex hull is the bald head."""
        person, expression = self.identity, self.expression
        width, jaw_width, puff = person.head_width, person.jaw_width, expression("cheekPuff")
        chin_y = -0.05 - 0.25 * person.chin_length - self.jaw
        parts = (
            Ellipsoid((0.0, 0.24, -0.33), (0.5 * width, 0.54, 0.53)),
            Ellipsoid((0.0, -0.02, -0.26), ((0.465 + 0.07 * puff) * width, 0.36, 0.36)),
            Ellipsoid(
                (self.jaw_shift, chin_y, -0.12 + 0.06 * expression("jawForward") - 0.3 * self.jaw),
                ((0.27 + 0.04 * puff) * jaw_width, 0.2, 0.2),
            ),
        )
        return np.concatenate([part.points() for part in parts])

    def on_face(self, points: np.ndarray | Sequence[Sequence[float]], lift: float = 0.0) -> np.ndarray:
        """(n, 2) places x, y to (n, 3) points on the face's front, `lift` before it."""
        points = np.asarray(points, np.float64)
        inside = 1 - (points[:, 0] / (0.53 * self.identity.head_width)) ** 2 - (points[:, 1] / 0.78) ** 2
        depth = -0.4 + 0.48 * np.sqrt(np.maximum(inside, 0.02))
        return np.column_stack([points, depth + lift])

    def eye(self, sign: int) -> Eye:
        """The eye at the picture's right (sign 1) or left (-1) side."""
        person, expression = self.identity, self.expression
        blink, squint = expression.side("eyeBlink", sign), expression.side("eyeSquint", sign)
        wide, look_down = expression.side("eyeWide", sign), expression.side("eyeLookDown", sign)
        cheek = expression.side("cheekSquint", sign)
        across = expression.side("eyeLookOut", sign) - expression.side("eyeLookIn", sign)
        up = expression.side("eyeLookUp", sign) - look_down
        upper = (0.092 * (1 + 0.3 * wide) - 0.022 * look_down) * (1 - 0.25 * squint)
        lower = 0.06 * (1 + 0.12 * wide) * (1 - 0.55 * squint) * (1 - 0.3 * cheek)
        upper = upper * (1 - blink) - 0.55 * lower * blink
        lower = lower * (1 - 0.45 * blink)
        size = person.eye_size
        return Eye(
            sign=sign,
            centre=np.array([sign * EYE_X * person.eye_distance, EYE_Y]),
            half_width=0.13 * size,
            upper=upper * size,
            lower=lower * size,
            open_upper=0.092 * size,
            tilt=person.eye_tilt,
            gaze=np.array([sign * across * 0.046, up * 0.034]) * size,
            iris=0.073 * size,
        )

    def brow(self, sign: int) -> np.ndarray:
        """(n, 2) outline of a brow."""
        person, expression = self.identity, self.expression
        s = np.linspace(0, 1, 9)  # from the inner to the outer end
        down, outer = expression.side("browDown", sign), expression.side("browOuterUp", sign)
        inner = expression("browInnerUp")
        arch = 0.035 * np.sin(np.pi * s**0.8) + (s - 0.4) * 0.24 * np.tan(person.brow_tilt)
        raised = 0.11 * inner * (1 - s) ** 1.2 + 0.1 * outer * s - down * (0.085 - 0.04 * s)
        x = 0.085 + 0.25 * s - 0.025 * down * (1 - s)
        y = BROW_Y - 0.02 + 0.16 * (person.brow_height - 1) + arch + raised
        half = 0.026 * person.brow_width * np.sqrt(np.maximum(1 - s**2.2, 0.0)) * (0.75 + 0.25 * np.minimum(s * 5, 1))
        outline_y = np.concatenate([y + half, (y - half)[::-1]])
        return np.column_stack([sign * np.concatenate([x, x[::-1]]), outline_y])

    def mouth(self) -> Mouth:
        person, expression = self.identity, self.expression
        t = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 21))
        pucker, funnel, jaw = expression("mouthPucker"), expression("mouthFunnel"), expression("jawOpen")
        sides = {sign: self._mouth_corner(sign) for sign in (-1, 1)}
        half_width, corner_y = (
            np.where(t < 0, sides[-1][index], sides[1][index]) * person.mouth_width ** (index == 0) for index in (0, 1)
        )
        x = half_width * t + 0.07 * expression.towards_left("mouth") + self.jaw_shift * 0.8
        middle = MOUTH_Y + 0.02 * expression("mouthShrugLower") - 0.015 * jaw
        base = middle + corner_y * np.abs(t) ** 1.7
        left, right = np.clip(0.5 + t, 0, 1), np.clip(0.5 - t, 0, 1)

        def by_side(name: str) -> np.ndarray:
            return expression(f"{name}Left") * left + expression(f"{name}Right") * right

        arch = np.sqrt(1 - t**2)
        shut = 1 - 0.85 * expression("mouthClose")
        sneer = by_side("noseSneer")
        rise = (0.05 * by_side("mouthUpperUp") + 0.025 * sneer + 0.028 * funnel + 0.04 * jaw * shut) * arch
        drop = (0.055 * by_side("mouthLowerDown") + 0.045 * funnel + 0.25 * jaw * shut) * arch
        press = 1 - 0.45 * by_side("mouthPress")
        full = person.lip_fullness * (1 + 0.35 * pucker + 0.3 * funnel) * press
        upper = 0.05 * full * (1 - 0.85 * expression("mouthRollUpper")) * (1 - np.abs(t) ** 2.2)
        upper = upper * (1 - 0.3 * np.exp(-((t / 0.16) ** 2))) * (1 + 0.2 * expression("mouthShrugUpper"))
        lower = 0.066 * full * (1 - 0.85 * expression("mouthRollLower")) * (1 - t**2)
        return Mouth(x=x, base=base, rise=rise, drop=drop, upper=upper, lower=lower)

    def _mouth_corner(self, sign: int) -> tuple[float, float]:
        """Half width and height over the middle of one side."""
        expression = self.expression
        smile, frown = expression.side("mouthSmile", sign), expression.side("mouthFrown", sign)
        wider = (
            0.24 * smile + 0.22 * expression.side("mouthStretch", sign) + 0.08 * expression.side("mouthDimple", sign)
        )
        narrower = 0.42 * expression("mouthPucker") + 0.3 * expression("mouthFunnel") + 0.14 * expression("jawOpen")
        height = 0.095 * smile - 0.08 * frown - 0.025 * expression.side("mouthStretch", sign)
        return 0.195 * max(1 + wider - narrower, 0.3), height + 0.012


class Eye(NamedTuple):
    """One eye on the face's front, in face widths."""

    sign: int
    centre: np.ndarray  # (2,)
    half_width: float
    upper: float  # the upper lid's height over the corners; below 0 when it is shut
    lower: float
    open_upper: float  # the upper lid's height at rest
    tilt: float
    gaze: np.ndarray  # (2,) shift of the iris
    iris: float  # its radius

    def lid(self, height: float) -> np.ndarray:
        """(n, 2) from the inner to the outer corner over this height."""
        s = np.linspace(-1, 1, 17)
        y = height * (1 - np.abs(s) ** 2.3) + (s + 1) * 0.5 * np.tan(self.tilt) * self.half_width * 2
        return np.column_stack([self.centre[0] + self.sign * s * self.half_width, self.centre[1] + y])

    def opening(self) -> np.ndarray:
        """(n, 2) outline; empty of area where the eye is shut."""
        upper = max(self.upper, -self.lower)
        return np.concatenate([self.lid(upper), self.lid(-self.lower)[::-1]])

    def disc(self, radius: float, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
        """(n, 2) a circle about the middle of the iris."""
        turn = np.linspace(0, 2 * np.pi, 25)[:-1]
        circle = np.column_stack([np.cos(turn), np.sin(turn)]) * radius
        return self.centre + self.gaze + np.array([0.0, 0.012]) + shift + circle


class Mouth(NamedTuple):
    """Lips along t from the picture's left corner to the right one: (n,) each, in face widths."""

    x: np.ndarray
    base: np.ndarray  # where the closed lips meet
    rise: np.ndarray  # from there to the upper lip's lower edge
    drop: np.ndarray  # from there to the lower lip's upper edge
    upper: np.ndarray  # thickness of the lips
    lower: np.ndarray

    def between(self, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        """(2n, 2) outline of what lies between two heights."""
        above, below = np.column_stack([self.x, top]), np.column_stack([self.x, bottom])
        return np.concatenate([above, below[::-1]])

    def lips(self) -> np.ndarray:
        return self.between(self.base + self.rise + self.upper, self.base - self.drop - self.lower)

    def inside(self) -> np.ndarray:
        return self.between(self.base + self.rise, self.base - self.drop)

    @property
    def opening(self) -> float:
        """The largest distance of the lips."""
        return float((self.rise + self.drop).max())

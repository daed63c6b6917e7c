"""The drawn hair: a surface about the skull, cut off at a hairline."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lib_hellomeme.training.head import View
from lib_hellomeme.training.identity import Identity

SECTORS = np.radians(np.linspace(-118, 118, 41))  # about the head, 0 at the face's middle
LEVELS = 8
TOP = 1.0


class Volume(NamedTuple):
    """Radii of the hair about HAIR_CENTRE, and how far it hangs down, in face widths."""

    width: float
    height: float
    depth: float
    length: float  # y of its lower end
    flare: float  # how much wider it grows per face width below the centre
    sides: float  # y of the hairline before the ears


CENTRE = np.array([0.0, 0.25, -0.34])
VOLUMES: dict[str, Volume] = {
    "long": Volume(0.575, 0.62, 0.6, -0.98, 0.1, -0.62),
    "bob": Volume(0.59, 0.63, 0.6, -0.42, 0.1, -0.34),
    "short": Volume(0.56, 0.62, 0.58, 0.02, -0.3, 0.06),
    "curly": Volume(0.57, 0.6, 0.6, -0.12, 0.0, 0.1),
    "bun": Volume(0.54, 0.59, 0.57, 0.06, -0.45, 0.14),
    "ponytail": Volume(0.54, 0.59, 0.57, 0.06, -0.45, 0.14),
    "buzz": Volume(0.52, 0.565, 0.555, 0.1, -0.4, 0.16),
    "swept": Volume(0.55, 0.65, 0.58, 0.04, -0.35, 0.1),
}


class Hair:
    """The hair of one person; there is none for the bald."""

    def __init__(self, person: Identity) -> None:
        self.person = person
        self.volume = VOLUMES[person.hair_shape]
        self.line = self._hairline()

    def surface(self, angle: np.ndarray, y: np.ndarray, swell: float = 1.0) -> np.ndarray:
        """Angles about the head and heights (n,) to points (n, 3); above the centre an ellipsoid, below a skirt."""
        volume = self.volume
        above = (y - CENTRE[1]) / (volume.height * swell)
        radius = np.where(above > 0, np.sqrt(np.maximum(1 - above**2, 0.0)), 1 - volume.flare * above * volume.height)
        width = volume.width * self.person.head_width * swell
        x = np.sin(angle) * radius * width
        z = CENTRE[2] + np.cos(angle) * radius * volume.depth * swell
        return np.column_stack([x, y, z])

    def back(self) -> np.ndarray:
        """(n, 3) points whose hull is what is seen of the hair behind the head."""
        y = np.concatenate([CENTRE[1] + self.volume.height * np.sin(np.linspace(0.08, 1.57, 7)), [self.volume.length]])
        around = np.radians(np.linspace(72, 288, 17))
        points = [self.surface(around, np.full(17, height)) for height in y]
        front = np.linspace(-np.pi / 2, np.pi / 2, 17)
        points += [self.surface(front, np.full(17, height)) for height in y if height > 0.6]
        return np.concatenate(points)

    def front(self, view: View) -> list[np.ndarray]:
        """The patches (4, 2) px of the hair before the head that face the camera."""
        heights = self._heights()  # levels sectors
        angles = np.broadcast_to(SECTORS, heights.shape)
        points = self.surface(angles.ravel(), heights.ravel())
        shown = view(points).reshape(*heights.shape, 2)
        a, b, c, d = shown[:-1, :-1], shown[:-1, 1:], shown[1:, 1:], shown[1:, :-1]
        first, second = c - a, d - b
        facing = first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0] < 0  # counterclockwise, y down
        patches = np.stack([a, b, c, d], axis=2)
        return list(patches[facing])

    def strands(self, view: View) -> list[np.ndarray]:
        """Lines (n, 2) px from the parting down to the hairline."""
        heights = self._heights()
        lines = []
        for sector in range(3, len(SECTORS) - 3, 5):
            angles = SECTORS[sector] + np.linspace(0.12, 0.0, LEVELS) * -np.sign(SECTORS[sector])
            lines.append(view(self.surface(angles, heights[:, sector], swell=1.004))[: LEVELS - 2])
        return lines

    def gloss(self, view: View) -> np.ndarray:
        """(n, 2) px of a light patch at the upper left."""
        angle = np.radians(np.linspace(-62, 18, 13))
        zigzag = 0.022 * np.cos(np.arange(13) * np.pi)
        top = CENTRE[1] + self.volume.height * (0.76 + 0.05 * np.sin(np.linspace(0, np.pi, 13)))
        bottom = top - 0.085 * np.sin(np.linspace(0, np.pi, 13)) - np.abs(zigzag)
        points = [self.surface(angle, top), self.surface(angle[::-1], bottom[::-1])]
        return view(np.concatenate(points))

    def _heights(self) -> np.ndarray:
        """(LEVELS, sectors): y of the patches' corners, from the hairline up to the crown."""
        share = np.linspace(0, 1, LEVELS)[:, None]
        top = CENTRE[1] + self.volume.height
        line = self.line[None]
        curved = np.sin(share * np.pi / 2)
        return line + (top - line) * curved

    def _hairline(self) -> np.ndarray:
        """(sectors,) y of the hair's lower edge before the face."""
        degrees = np.degrees(SECTORS)
        forehead = self._forehead(degrees)
        side, sides = np.abs(degrees), self.volume.sides
        temple = np.interp(side, [46, 60, 72, 90, 118], [0.0, 0.3, 0.85, 1.0, 1.0])
        low = np.interp(side, [90, 118], [sides, min(sides, self.volume.length + 0.06)])
        return forehead * (1 - temple) + low * temple

    def _forehead(self, degrees: np.ndarray) -> np.ndarray:
        """The fringe: straight, swept to one side of the parting, or none."""
        person = self.person
        if person.hair_shape in ("buzz", "swept") or person.fringe == "open":
            return 0.63 - (degrees / 62) ** 2 * 0.09
        if person.fringe == "straight":
            return 0.475 - 0.02 * np.abs(np.sin(np.radians(degrees) * 7.5 + person.parting))
        parting = 32 * person.parting
        distance = np.abs(degrees - parting)
        return 0.68 - 0.30 * (1 - np.exp(-distance / 34))

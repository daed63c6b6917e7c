"""Flat shapes drawn as numbers, coloured afterwards: pixels, regions and clipping come from one array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum, auto

import cv2
import numpy as np

SUBPIXEL_BITS = 4
SMALL_SIDE = 160  # px; up to here every pixel is drawn as 4 x 4, above as 3 x 3


class Paint(IntEnum):
    """What a point of the picture shows."""

    BACKGROUND = 0
    BACKDROP = auto()
    HAIR = auto()
    HAIR_LIGHT = auto()
    HAIR_DARK = auto()
    CLOTHES = auto()
    CLOTHES_DARK = auto()
    CLOTHES_LIGHT = auto()
    SKIN = auto()
    SKIN_DARK = auto()
    SKIN_LIGHT = auto()
    CREASE = auto()
    BLUSH = auto()
    NECK = auto()
    NECK_DARK = auto()
    SCLERA = auto()
    SCLERA_DARK = auto()
    IRIS = auto()
    IRIS_DARK = auto()
    PUPIL = auto()
    GLINT = auto()
    LASHES = auto()
    BROW = auto()
    LIPS = auto()
    LIPS_DARK = auto()
    MOUTH = auto()
    TEETH = auto()
    TONGUE = auto()
    BEARD = auto()
    GLASSES = auto()
    EARRING = auto()


class Canvas:
    """Points are (n, 2) px of the final picture, pixel i covering [i, i + 1); line widths are px of it too."""

    def __init__(self, width: int, height: int) -> None:
        self.factor = 4 if min(width, height) <= SMALL_SIDE else 3
        self.paint = np.zeros((height * self.factor, width * self.factor), np.uint8)

    def fill(self, points: np.ndarray, paint: Paint, within: np.ndarray | None = None) -> None:
        """Fill one polygon, in the part of the picture where the mask `within` is not 0."""
        self.fill_all([points], paint, within)

    def fill_all(self, polygons: Sequence[np.ndarray], paint: Paint, within: np.ndarray | None = None) -> None:
        """Fill polygons that may touch but not overlap (even-odd rule)."""
        fixed = [self._fixed(points) for points in polygons]
        if within is None:
            cv2.fillPoly(self.paint, fixed, (int(paint),), shift=SUBPIXEL_BITS)
        else:
            mask = np.zeros_like(self.paint)
            cv2.fillPoly(mask, fixed, (1,), shift=SUBPIXEL_BITS)
            self.put(mask, paint, within)

    def line(self, points: np.ndarray, width: float, paint: Paint, within: np.ndarray | None = None) -> None:
        """A line of `width` px with round ends through the points; thinner than a drawn pixel it is not drawn."""
        thickness = round(width * self.factor)
        if thickness < 1:
            return
        mask = np.zeros_like(self.paint) if within is not None else self.paint
        value = 1 if within is not None else int(paint)
        cv2.polylines(mask, [self._fixed(points)], False, (value,), thickness, shift=SUBPIXEL_BITS)
        if within is not None:
            self.put(mask, paint, within)

    def mask(self, points: np.ndarray) -> np.ndarray:
        """1 inside the polygon, 0 outside, at the size it is drawn at."""
        mask = np.zeros_like(self.paint)
        cv2.fillPoly(mask, [self._fixed(points)], (1,), shift=SUBPIXEL_BITS)
        return mask

    def put(self, mask: np.ndarray, paint: Paint, within: np.ndarray) -> None:
        """Paint where both masks are not 0."""
        self.paint[np.logical_and(mask, within)] = paint

    def shown(self, *paints: Paint) -> np.ndarray:
        """The mask of what these paints show."""
        known = np.zeros(256, np.uint8)
        known[list(paints)] = 1
        return cv2.LUT(self.paint, known)

    def picture(self, colours: Mapping[Paint, Sequence[float]]) -> np.ndarray:
        """float32 (H, W, 3) in [0, 255]: the mean colour of each pixel's points."""
        palette = np.zeros((256, 3), np.uint8)
        for paint, colour in colours.items():
            palette[paint] = np.clip(np.rint(colour), 0, 255)
        height, width = (side // self.factor for side in self.paint.shape)
        coloured = palette[self.paint]
        return cv2.resize(coloured, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)

    def points(self) -> np.ndarray:
        """uint8 (H, W): what the middle of each pixel shows, as a Paint."""
        middle = self.factor // 2
        return np.ascontiguousarray(self.paint[middle :: self.factor, middle :: self.factor])

    def _fixed(self, points: np.ndarray) -> np.ndarray:
        scaled = (np.asarray(points) * self.factor - 0.5) * (1 << SUBPIXEL_BITS)
        return np.rint(scaled).astype(np.int32)

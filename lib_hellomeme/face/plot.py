"""A track's head and expression over time, as a picture for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from lib_hellomeme.face.camera import head_origin, head_scale
from lib_hellomeme.face.pose import PUBLISHED_OFFSET
from lib_hellomeme.face.track import ARKIT_NAMES, FaceTrack

WIDTH = 1200  # px of the picture
LEFT, RIGHT, TOP, GAP = 150, 20, 62, 36  # px around and between the panels
PANEL_HEIGHT, ROW_HEIGHT, ROW_GAP = 170, 22, 4
TICKS = 8  # of the time, about
BLACK, GREY, PALE, LOST = (40, 40, 40), (150, 150, 150), (225, 225, 225), (255, 225, 215)
RED, GREEN, BLUE = (205, 50, 50), (40, 145, 60), (40, 90, 200)


def plot_track(track: FaceTrack, title: str = "") -> np.ndarray:
    """RGB uint8 (H, WIDTH, 3): rotation in degrees, place and size in the picture, each measured coefficient.

    Frames without a face have a reddish ground.
    """
    names = [name for name in ARKIT_NAMES if name in track.measured]
    plot = _Plot(track, TOP + 2 * (PANEL_HEIGHT + GAP) + len(names) * (ROW_HEIGHT + ROW_GAP) + GAP)
    _write(plot.canvas, title or track.extractor, (LEFT, 22))
    rotation = np.degrees(np.unwrap([frame.rotation for frame in track.frames], axis=0))
    plot.panel("degrees", rotation, ("pitch (down)", "yaw (to the picture's right)", "roll (counterclockwise)"), 10.0)
    labels = ("from the left", "from above", "face width")
    plot.panel("% of the picture", _places(track) * 100, labels, 10.0)
    coefficients = np.array([frame.coefficients for frame in track.frames])
    for name in names:
        plot.row(name, coefficients[:, ARKIT_NAMES.index(name)])
    plot.times()
    return plot.canvas


def _places(track: FaceTrack) -> np.ndarray:
    """(n, 3) fractions of the picture's width, height and width: the head's origin and the face's width."""
    rows = []
    for frame in track.frames:
        x, y = head_origin(frame.translation, frame.width, frame.height)
        wide = head_scale(frame.translation, frame.width, frame.height) * PUBLISHED_OFFSET.unit
        rows.append([x / frame.width, y / frame.height, wide / frame.width])
    return np.array(rows)


class _Plot:
    """A canvas filled from above; all that is drawn shares the axis of time."""

    def __init__(self, track: FaceTrack, height: int) -> None:
        self.canvas = np.full((height, WIDTH, 3), 255, np.uint8)
        self.seconds = np.array([float(frame.time) for frame in track.frames])
        self.step = 1 / float(track.fps)  # how long the last frame is shown
        self.lost = np.array([not frame.found for frame in track.frames])
        self.y = TOP

    def panel(self, unit: str, values: np.ndarray, labels: Sequence[str], least: float) -> None:
        """(n, 3) curves on one scale, which spans at least 2 * `least`."""
        middle, half = (values.max() + values.min()) / 2, max(least, np.ptp(values) / 2 * 1.1)
        self._ground(PANEL_HEIGHT)
        for mark in _round_steps(middle - half, middle + half, 6):
            y = self._height(np.array([mark]), middle - half, middle + half, PANEL_HEIGHT)[0]
            cv2.line(self.canvas, (LEFT, y), (WIDTH - RIGHT, y), PALE, 1)
            _write(self.canvas, f"{mark:g}", (LEFT - 8, y + 4), right=True)
        _write(self.canvas, unit, (LEFT - 8, self.y - 8), right=True)
        x = LEFT
        for label, colour, curve in zip(labels, (RED, GREEN, BLUE), values.T, strict=True):
            self._curve(self._height(curve, middle - half, middle + half, PANEL_HEIGHT), colour)
            x = _write(self.canvas, label, (x, self.y - 8), colour) + 30
        self.y += PANEL_HEIGHT + GAP

    def row(self, name: str, values: np.ndarray) -> None:
        """One coefficient from 0 to 1, the ground below it filled."""
        self._ground(ROW_HEIGHT)
        bottom = self.y + ROW_HEIGHT
        heights = self._height(values, 0.0, 1.0, ROW_HEIGHT)
        outline = np.column_stack([self._x(self.seconds), heights])
        closed = np.vstack([outline, [outline[-1, 0], bottom], [outline[0, 0], bottom]]).astype(np.int32)
        cv2.fillPoly(self.canvas, [closed], (190, 205, 235))
        self._curve(heights, BLUE)
        _write(self.canvas, name, (LEFT - 8, self.y + ROW_HEIGHT - 6), right=True)
        self.y += ROW_HEIGHT + ROW_GAP

    def times(self) -> None:
        for mark in _round_steps(self.seconds[0], self.seconds[-1], TICKS):
            x = int(self._x(np.array([mark]))[0])
            cv2.line(self.canvas, (x, TOP), (x, self.y), PALE, 1)
            _write(self.canvas, f"{mark:g} s", (x - 8, self.y + 16))

    def _ground(self, height: int) -> None:
        edges = self._x(np.append(self.seconds, self.seconds[-1] + self.step))
        for index in np.flatnonzero(self.lost):
            place = (edges[index], self.y), (max(edges[index + 1] - 1, edges[index]), self.y + height)
            cv2.rectangle(self.canvas, *place, LOST, -1)
        cv2.rectangle(self.canvas, (LEFT, self.y), (WIDTH - RIGHT, self.y + height), PALE, 1)

    def _curve(self, heights: np.ndarray, colour: tuple[int, int, int]) -> None:
        points = np.column_stack([self._x(self.seconds), heights]).astype(np.int32)
        cv2.polylines(self.canvas, [points], False, colour, 1, cv2.LINE_AA)

    def _x(self, seconds: np.ndarray) -> np.ndarray:
        span = self.seconds[-1] - self.seconds[0] + self.step
        return np.rint(LEFT + (WIDTH - LEFT - RIGHT) * (seconds - self.seconds[0]) / span).astype(int)

    def _height(self, values: np.ndarray, low: float, high: float, height: int) -> np.ndarray:
        return np.rint(self.y + height * (high - values) / (high - low)).astype(int)


def _round_steps(low: float, high: float, count: int) -> np.ndarray:
    """Round numbers from low to high, at most about as many as asked for."""
    wide = max(high - low, 1e-3) / count
    size = 10.0 ** np.floor(np.log10(wide))
    step = size * next(factor for factor in (1, 2, 5, 10) if factor * size >= wide)
    return np.arange(np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9) + 1) * step + 0.0


def _write(
    canvas: np.ndarray,
    text: str,
    place: tuple[int, int],
    colour: tuple[int, int, int] = BLACK,
    right: bool = False,
) -> int:
    """From the lower left, or to the lower right corner; returns where it ends."""
    (wide, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
    x = place[0] - wide if right else place[0]
    cv2.putText(canvas, text, (x, place[1]), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
    return x + wide

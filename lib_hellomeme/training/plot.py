"""The picture of a run's losses."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

WIDTH, HEIGHT, MARGIN = 800, 400, 50
GREY, BLUE, BLACK = (200, 200, 200), (30, 90, 190), (40, 40, 40)


def plot_losses(losses: Sequence[float], title: str) -> np.ndarray:
    """Losses on a logarithmic scale, thin each, thick their running mean. RGB uint8."""
    canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    values = np.log10(np.maximum(losses, 1e-8))
    low, high = np.floor(values.min() * 5) / 5, np.ceil(values.max() * 5 + 1e-9) / 5
    high = max(high, low + 0.2)

    def at(positions: np.ndarray, heights: np.ndarray) -> np.ndarray:
        x = MARGIN + (WIDTH - 2 * MARGIN) * positions / max(len(losses) - 1, 1)
        y = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (heights - low) / (high - low)
        return np.rint(np.column_stack([x, y])).astype(np.int32)

    for mark in np.arange(low, high + 1e-6, (high - low) / 4):
        y = int(at(np.zeros(1), np.array([mark]))[0, 1])
        cv2.line(canvas, (MARGIN, y), (WIDTH - MARGIN, y), GREY, 1)
        _write(canvas, f"{10**mark:.3g}", (4, y + 4))
    steps = np.arange(len(values))
    cv2.polylines(canvas, [at(steps, values)], False, GREY, 1, cv2.LINE_AA)
    span = max(1, len(values) // 50)
    mean = np.convolve(np.pad(values, (span - 1, 0), mode="edge"), np.ones(span) / span, mode="valid")
    cv2.polylines(canvas, [at(steps, mean)], False, BLUE, 2, cv2.LINE_AA)
    _write(canvas, f"{title}: loss over {len(values)} steps, now {10 ** mean[-1]:.4g}", (MARGIN, 30))
    return canvas


def _write(canvas: np.ndarray, text: str, place: tuple[int, int]) -> None:
    cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, BLACK, 1, cv2.LINE_AA)

"""Small videos written with PyAV."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    times: Iterable[Fraction] | None = None,
    fps: int = 25,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
) -> Path:
    """RGB uint8 frames of one size; times in seconds, by default regular."""
    pictures = list(frames)
    clock = Fraction(1, 12800)
    moments = [Fraction(index, fps) for index in range(len(pictures))] if times is None else list(times)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.time_base, stream.codec_context.time_base = pixel_format, clock, clock
        for picture, moment in zip(pictures, moments, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = int(moment / clock), clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def grey_steps(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """Frame i is everywhere 10 * i grey."""
    return [np.full((height, width, 3), 10 * index, np.uint8) for index in range(count)]

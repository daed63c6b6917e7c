"""Small videos written with PyAV."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

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
        stream: Any = container.add_stream(codec, rate=fps)  # which kind it is goes by the codec
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


def write_sound(
    path: Path, codec: str, beep: tuple[float, float], seconds: float, pictures: Iterable[Fraction] = ()
) -> Path:
    """A 440 Hz tone between two moments, otherwise silence; with small grey pictures at the times given."""
    rate = 48000
    time = np.arange(round(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * 440 * time) * ((beep[0] <= time) & (time < beep[1]))
    with av.open(str(path), "w") as container:
        moments = list(pictures)
        stream: Any = container.add_stream(codec, rate=rate, layout="mono")
        if moments:
            video = container.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        resampler = av.AudioResampler(stream.codec_context.format, "mono", rate)
        samples = np.rint(wave * 32767).astype(np.int16)[None]
        for start in range(0, samples.shape[1], 4800):
            frame = av.AudioFrame.from_ndarray(samples[:, start : start + 4800], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            for resampled in resampler.resample(frame):
                container.mux(stream.encode(resampled))
        container.mux(stream.encode())
        for moment, picture in zip(moments, grey_steps(len(moments)), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(moment * 1000), Fraction(1, 1000)
            container.mux(video.encode(frame))
        if moments:
            container.mux(video.encode())
    return path

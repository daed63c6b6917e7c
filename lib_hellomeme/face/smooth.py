"""Smoothing of tracks that does not lag: a one-euro filter run forwards and backwards."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lib_hellomeme.face.track import FaceFrame, FaceTrack

# Speed, in units a second, at which the filter lets twice as much through as at rest.
ROTATION_SPEED = 0.15  # radians
TRANSLATION_SPEED = 0.15  # as published
COEFFICIENT_SPEED = 0.8
POINT_SPEED = 0.3  # of the shorter side of the picture
SPEED_CUTOFF = 1.0  # Hz, for the estimate of the speed; the published filter's d_cutoff
REST_CUTOFF = 1.5  # Hz, at strength 1


def smooth_track(track: FaceTrack, strength: float = 1.0) -> FaceTrack:
    """Heads, coefficients, boxes and anchors without their jitter; strength 0 changes nothing, 1 is usual.

    One-euro filter (Casiez, Roussel, Vogel, CHI 2012); the mean of a forward and a backward run has no delay.
    """
    if strength <= 0 or len(track.frames) < 3:
        return track
    frames = track.frames
    times = np.array([float(frame.time) for frame in frames])
    side = min(frames[0].width, frames[0].height)

    def smooth(read: Callable[[FaceFrame], np.ndarray], speed: float) -> np.ndarray:
        values = np.stack([read(frame) for frame in frames])
        there = one_euro(times, values, REST_CUTOFF / strength, speed)
        back = one_euro(-times[::-1], values[::-1], REST_CUTOFF / strength, speed)[::-1]
        return (there + back) / 2

    turned = np.unwrap(np.stack([frame.rotation for frame in frames]), axis=0)
    turns = iter(turned)
    parts = {
        "rotation": smooth(lambda _: next(turns), ROTATION_SPEED),
        "translation": smooth(lambda frame: frame.translation, TRANSLATION_SPEED),
        "coefficients": smooth(lambda frame: frame.coefficients, COEFFICIENT_SPEED),
    }
    if all(frame.box is not None for frame in frames):
        parts["box"] = smooth(lambda frame: np.asarray(frame.box), POINT_SPEED * side)
    shared = [name for name in frames[0].anchors if all(name in frame.anchors for frame in frames)]
    anchors = {name: smooth(lambda frame, name=name: frame.anchors[name], POINT_SPEED * side) for name in shared}
    smoothed = []
    for index, frame in enumerate(frames):
        own = frame.anchors | {name: values[index] for name, values in anchors.items()}
        smoothed.append(replace(frame, anchors=own, **{name: values[index] for name, values in parts.items()}))
    return replace(track, frames=tuple(smoothed))


def one_euro(times: np.ndarray, values: np.ndarray, cutoff: float, speed: float) -> np.ndarray:
    """(n,) seconds, increasing, and values (n, ...) to smoothed values; the cutoff in Hz doubles at `speed`."""
    smoothed, velocity = np.array(values, np.float64), np.zeros(values.shape[1:])
    for index in range(1, len(values)):
        step = max(times[index] - times[index - 1], 1e-6)
        change = (values[index] - smoothed[index - 1]) / step
        velocity = velocity + _share(SPEED_CUTOFF, step) * (change - velocity)
        part = _share(cutoff * (1.0 + np.abs(velocity) / speed), step)
        smoothed[index] = smoothed[index - 1] + part * (values[index] - smoothed[index - 1])
    return smoothed


def _share(cutoff: float | np.ndarray, step: float) -> float | np.ndarray:
    """The part of a new value that a low-pass filter takes."""
    rate = 2 * math.pi * cutoff * step
    return rate / (rate + 1.0)

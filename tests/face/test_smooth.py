"""Smoothing takes the jitter away and does not delay."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from lib_hellomeme.face.smooth import one_euro, smooth_track
from lib_hellomeme.face.track import FaceTrack
from tests.face.samples import make_frame

FPS = 25
SECONDS = np.arange(0, 8, 1 / FPS)


def track_of(yaw: np.ndarray) -> FaceTrack:
    frames = [replace(make_frame((0, angle, 0)), time=Fraction(i, FPS)) for i, angle in enumerate(yaw)]
    return FaceTrack(Fraction(FPS), tuple(frames), frozenset(), "test")


def yaw_of(track: FaceTrack) -> np.ndarray:
    return np.array([frame.rotation[1] for frame in track.frames])


def delay(signal: np.ndarray, smoothed: np.ndarray) -> float:
    """In frames, by the best fit of the shifted signal, to a tenth of a frame."""
    index = np.arange(len(signal))
    shifts = np.arange(-5, 5.05, 0.1)
    inner = slice(25, -25)
    errors = [((np.interp(index - shift, index, signal) - smoothed)[inner] ** 2).sum() for shift in shifts]
    return float(shifts[int(np.argmin(errors))])


@pytest.mark.parametrize("hertz", [0.3, 0.6, 1.2, 2.0])
def test_no_delay_where_a_single_run_has_one(hertz):
    nod = 0.3 * np.sin(2 * np.pi * hertz * SECONDS)
    assert abs(delay(nod, yaw_of(smooth_track(track_of(nod))))) <= 0.2
    assert delay(nod, one_euro(SECONDS, nod[:, None], 1.5, 0.15)[:, 0]) >= 0.25


def crossing(values: np.ndarray, height: float) -> float:
    """The frame, with its fraction, at which the values first pass the height."""
    return float(np.interp(height, values[95:106], np.arange(95, 106)))


@pytest.mark.parametrize("size", [0.05, 0.3])
def test_a_quick_turn_is_passed_half_way_at_the_same_frame(size):
    turn = np.interp(np.arange(len(SECONDS)), [96, 104], [0, size])
    forward = one_euro(SECONDS, turn[:, None], 1.5, 0.15)[:, 0]
    assert abs(crossing(yaw_of(smooth_track(track_of(turn))), size / 2) - crossing(turn, size / 2)) <= 0.1
    assert crossing(forward, size / 2) - crossing(turn, size / 2) >= 0.3


def test_jitter_at_rest_is_less_than_half():
    jitter = np.random.default_rng(0).normal(0, 0.01, len(SECONDS))
    assert yaw_of(smooth_track(track_of(jitter))).std() < 0.5 * jitter.std()


def test_a_nod_keeps_its_size():
    nod = 0.3 * np.sin(2 * np.pi * 1.0 * SECONDS)
    assert np.abs(yaw_of(smooth_track(track_of(nod)))).max() > 0.8 * 0.3


def test_roll_through_half_a_turn_does_not_swing_back():
    rolls = np.linspace(3.0, 3.4, 50)
    wrapped = (rolls + np.pi) % (2 * np.pi) - np.pi
    frames = [replace(make_frame((0, 0, roll)), time=Fraction(i, FPS)) for i, roll in enumerate(wrapped)]
    track = smooth_track(FaceTrack(Fraction(FPS), tuple(frames), frozenset(), "test"))
    assert np.cos([frame.rotation[2] for frame in track.frames]).max() < -0.9


def test_strength_zero_and_short_tracks_are_left_alone():
    track = track_of(np.array([0.0, 0.3, 0.0, 0.3]))
    assert smooth_track(track, 0.0) is track
    short = track_of(np.array([0.0, 0.3]))
    assert smooth_track(short) is short

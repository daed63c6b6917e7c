"""The picture of a track over time."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from lib_hellomeme.face.plot import LEFT, LOST, PANEL_HEIGHT, TOP, WIDTH, _round_steps, plot_track
from lib_hellomeme.face.track import ARKIT_NAMES, FaceTrack
from tests.face.samples import make_frame


def track_of(count: int, measured: int = 14, lost: tuple[int, ...] = ()) -> FaceTrack:
    frames = []
    for index in range(count):
        rotation = (0.0, 0.5 * np.sin(index / 5), 0.1)
        frame = replace(make_frame(rotation), time=Fraction(index, 25), found=index not in lost)
        frames.append(replace(frame, coefficients=np.full(len(ARKIT_NAMES), index / max(count - 1, 1))))
    return FaceTrack(Fraction(25), tuple(frames), frozenset(ARKIT_NAMES[:measured]), "test")


def rows_of(picture: np.ndarray, channel: int, column: int) -> np.ndarray:
    """Where a column is red, green or blue (0, 1, 2); thin lines are pale."""
    line = picture[:, column].astype(int)
    others = np.delete(line, channel, axis=1).max(axis=1)
    return np.flatnonzero(line[:, channel] - others > 25)


@pytest.mark.parametrize(("count", "measured"), [(1, 14), (2, 0), (3, 51), (3000, 14)])
def test_any_length_and_any_measure(count, measured):
    picture = plot_track(track_of(count, measured))
    assert picture.shape[1:] == (WIDTH, 3)
    assert picture.dtype == np.uint8
    assert (picture < 100).any()


def test_a_row_for_each_measured_coefficient():
    heights = [plot_track(track_of(5, measured)).shape[0] for measured in (0, 1, 2, 51)]
    step = heights[1] - heights[0]
    assert step > 15
    assert heights == [heights[0] + step * measured for measured in (0, 1, 2, 51)]


def test_the_yaw_curve_runs_up_and_down():
    picture = plot_track(track_of(50))[TOP : TOP + PANEL_HEIGHT]
    columns = np.linspace(LEFT + 5, WIDTH - 60, 12).astype(int)
    seen = [-float(rows_of(picture, 1, column).mean()) for column in columns]
    share = (columns - LEFT) / (WIDTH - 20 - LEFT)
    expected = np.sin(share * 50 / 5)
    assert np.corrcoef(seen, expected)[0, 1] > 0.99
    assert len(rows_of(picture, 0, columns[3]))


def test_frames_without_a_face_have_a_ground_of_their_own():
    def is_lost(picture: np.ndarray) -> np.ndarray:
        return (picture[TOP + 4] == LOST).all(axis=1)

    assert not is_lost(plot_track(track_of(50))).any()
    lost = np.flatnonzero(is_lost(plot_track(track_of(50, lost=tuple(range(10, 20))))))
    span = WIDTH - 20 - LEFT
    assert lost[0] == pytest.approx(LEFT + span * 10 / 50, abs=2)
    assert lost[-1] == pytest.approx(LEFT + span * 20 / 50, abs=2)


@pytest.mark.parametrize(
    ("low", "high", "count"), [(0, 6, 8), (-24.3, 31.2, 6), (0, 0, 5), (49.9, 50.3, 6), (0, 7200, 8)]
)
def test_marks_are_round_and_few(low, high, count):
    steps = _round_steps(low, high, count)
    assert 1 <= len(steps) <= count + 2
    assert all(low - 1e-6 <= step <= high + 1e-6 for step in steps)
    assert all(len(f"{step:g}") <= 5 for step in steps)

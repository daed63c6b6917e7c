"""Faces that move by themselves: timing, smoothness, composition, and the same for the same seed."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_hellomeme.errors import FaceError
from lib_hellomeme.face.procedural import ANGLES, MOTIONS, make_track
from lib_hellomeme.face.track import ARKIT_INDEX, FaceTrack

rates = st.sampled_from([Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(60)])
seeds = st.integers(0, 1000)


def values(track: FaceTrack, part: str) -> np.ndarray:
    if part in ANGLES:
        return np.degrees([frame.rotation[ANGLES.index(part)] for frame in track.frames])
    return np.array([frame.coefficients[ARKIT_INDEX[part]] for frame in track.frames])


def stretches(active: np.ndarray) -> list[int]:
    """The lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(int), [0]])))
    return (edges[1::2] - edges[::2]).tolist()


@given(st.sets(st.sampled_from(sorted(MOTIONS)), min_size=1), st.floats(0.05, 8.0), rates, seeds)
@settings(max_examples=60)
def test_every_track_starts_and_ends_at_rest(motions: set[str], seconds: float, fps: Fraction, seed: int) -> None:
    track = make_track(sorted(motions), seconds, fps, seed)
    assert len(track.frames) == round(seconds * fps)
    assert [frame.time for frame in track.frames] == [index / fps for index in range(len(track.frames))]
    for frame in (track.frames[0], track.frames[-1]):
        assert np.abs(frame.rotation).max() < 1e-3
        assert frame.coefficients.max() < 1e-3
    assert all(
        frame.found and frame.coefficients.min() >= 0 and frame.coefficients.max() <= 1 for frame in track.frames
    )
    moving = {name for name in ARKIT_INDEX if values(track, name).any()}
    assert moving <= track.measured


@pytest.mark.parametrize("name", MOTIONS)
def test_every_motion_moves_within_four_seconds_whatever_the_seed(name: str) -> None:
    for seed in range(20):
        track = make_track([name], 4.0, seed=seed)
        assert not track.warnings
        assert any(frame.rotation.any() or frame.coefficients.any() for frame in track.frames)


def test_a_motion_without_time_is_named() -> None:
    track = make_track(["nod", "blink"], 1.0)
    assert track.warnings == ("1 seconds are too short for nod",)


@given(seeds)
@settings(max_examples=20)
def test_the_same_seed_gives_the_same_and_another_another(seed: int) -> None:
    first, again, other = (make_track(list(MOTIONS), 4.0, seed=number) for number in (seed, seed, seed + 1))
    for frame, twin in zip(first.frames, again.frames, strict=True):
        assert (frame.rotation == twin.rotation).all()
        assert (frame.coefficients == twin.coefficients).all()
    assert any((a.rotation != b.rotation).any() for a, b in zip(first.frames, other.frames, strict=True))


@given(seeds)
@settings(max_examples=20)
def test_motions_add_up_and_leave_each_other_alone(seed: int) -> None:
    both, nod, talk = (make_track(motions, 5.0, seed=seed) for motions in (["talk", "nod"], ["nod"], ["talk"]))
    assert values(both, "pitch") == pytest.approx(values(nod, "pitch") + values(talk, "pitch"))
    assert (values(both, "jawOpen") == values(talk, "jawOpen")).all()


def test_blinks_last_as_long_and_come_as_often_as_blinks_do() -> None:
    fps, minutes = Fraction(200), 3
    track = make_track(["blink"], 60.0 * minutes, fps)
    lids = values(track, "eyeBlinkLeft")
    assert (lids == values(track, "eyeBlinkRight")).all()
    lengths = np.array(stretches(lids > 0.01)) / float(fps)
    assert len(lengths) == pytest.approx(17 * minutes, rel=0.25)
    assert lengths.min() >= 0.1
    assert lengths.max() <= 0.4
    assert lids.max() > 0.9


def test_nods_go_down_twice_a_second() -> None:
    pitch = values(make_track(["nod"], 60.0, Fraction(100)), "pitch")
    assert pitch.min() >= -1e-9
    assert 6.0 <= pitch.max() <= 10.0
    dips = np.array(stretches(pitch > 0.01 * pitch.max())) / 100
    assert dips.min() > 0.4
    assert dips.max() < 0.66


def test_a_shake_goes_to_both_sides_about_the_middle() -> None:
    yaw = values(make_track(["shake"], 60.0, Fraction(100)), "yaw")
    assert -yaw.min() == pytest.approx(yaw.max(), rel=0.4)
    assert abs(yaw.mean()) < 0.2


def test_a_talking_mouth_moves_at_two_to_seven_hertz() -> None:
    jaw = values(make_track(["talk"], 60.0, Fraction(50)), "jawOpen")
    power = np.abs(np.fft.rfft(jaw - jaw.mean())) ** 2
    hertz = np.fft.rfftfreq(len(jaw), 1 / 50)
    assert 2.0 <= (power * hertz)[hertz > 1].sum() / power[hertz > 1].sum() <= 7.0
    assert power[(hertz > 2) & (hertz < 7)].sum() > 0.6 * power[hertz > 1].sum()
    assert max(stretches(jaw < 0.01)) >= 10


def test_eyes_leap_and_the_head_follows() -> None:
    track = make_track(["look"], 60.0, Fraction(100))
    right = values(track, "eyeLookOutLeft") - values(track, "eyeLookInLeft")
    assert (right == values(track, "eyeLookInRight") - values(track, "eyeLookOutRight")).all()
    yaw = values(track, "yaw")
    assert np.abs(np.diff(right)).max() * 30 > 4 * np.abs(np.diff(yaw)).max()
    gaze = 30 * right + yaw  # degrees
    assert np.corrcoef(gaze, yaw)[0, 1] > 0.7


@pytest.mark.parametrize("name", ["nod", "shake", "look", "smile", "sway"])
def test_heads_and_smiles_move_without_a_jerk(name: str) -> None:
    """Acceleration stays finite as the steps get finer: halving them about halves the change of the speed."""
    parts = ("pitch", "yaw", "roll", "mouthSmileLeft")
    changes = [
        max(np.abs(np.diff(values(make_track([name], 20.0, Fraction(fps)), part), 2)).max() * fps for part in parts)
        for fps in (200, 400)
    ]
    assert changes[1] < 0.6 * changes[0]


@pytest.mark.parametrize(
    ("motions", "options", "words"),
    [
        (["blink", "fly"], {}, "no motion fly; choose among blink, nod"),
        ([], {}, "no motion given; choose among"),
        (["blink"], {"seconds": 0.0}, "0 seconds at 25 frames a second make no track"),
        (["blink"], {"seconds": -1.0}, "-1 seconds"),
        (["blink"], {"seconds": float("nan")}, "nan seconds"),
        (["blink"], {"seconds": 1e9}, "make no track of 1 to 100000"),
        (["blink"], {"fps": Fraction(0)}, "0 frames a second"),
        (["blink"], {"seed": -1}, "seed -1 is negative"),
    ],
)
def test_what_makes_no_track_is_one_line(motions: list[str], options: dict, words: str) -> None:
    with pytest.raises(FaceError, match=words) as caught:
        make_track(motions, **{"seconds": 4.0, **options})
    assert "\n" not in str(caught.value)

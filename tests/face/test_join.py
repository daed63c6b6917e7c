"""Tracks one after another: lengths, times, seams, sizes, frame rates, and what only some of them have."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_hellomeme.errors import FaceError
from lib_hellomeme.face.between import ease, interpolate_frames
from lib_hellomeme.face.camera import head_origin, head_scale
from lib_hellomeme.face.join import join_tracks, resample
from lib_hellomeme.face.track import FaceFrame, FaceTrack
from tests.face.samples import angles, make_frame, sizes

NTSC = Fraction(30000, 1001)


def track_of(yaws: list[float], fps: Fraction = Fraction(25), size: tuple[int, int] = (512, 512)) -> FaceTrack:
    frames = [make_frame((0, yaw, 0), (0.1, -0.1, -5), *size) for yaw in yaws]
    timed = tuple(replace(frame, time=index / fps) for index, frame in enumerate(frames))
    return FaceTrack(fps, timed, frozenset(), "test")


def yaw_of(track: FaceTrack) -> np.ndarray:
    return np.array([frame.rotation[1] for frame in track.frames])


@given(st.lists(st.integers(3, 9), min_size=1, max_size=4), st.integers(0, 3), st.sampled_from([Fraction(25), NTSC]))
def test_every_seam_takes_as_many_frames_as_are_blended(lengths: list[int], blend: int, fps: Fraction) -> None:
    joined = join_tracks([track_of([0.1] * length, fps) for length in lengths], blend)
    assert len(joined.frames) == sum(lengths) - blend * (len(lengths) - 1)
    assert [frame.time for frame in joined.frames] == [index / fps for index in range(len(joined.frames))]
    assert yaw_of(joined) == pytest.approx(0.1)


def test_without_a_blend_tracks_meet_as_they_are() -> None:
    assert yaw_of(join_tracks([track_of([0.1, 0.2]), track_of([-0.3, -0.4])])).tolist() == [0.1, 0.2, -0.3, -0.4]


def test_a_seam_melts_smoothly_from_one_to_the_other() -> None:
    yaw = yaw_of(join_tracks([track_of([0.4] * 12), track_of([-0.4] * 12)], blend=8))
    assert yaw[:4].tolist() == [0.4] * 4
    assert yaw[-4:].tolist() == [-0.4] * 4
    assert (np.diff(yaw[3:-3]) < 0).all()
    assert np.abs(np.diff(yaw)).max() < 0.8 / 4
    assert yaw + yaw[::-1] == pytest.approx(0, abs=1e-9)


@given(sizes, sizes)
def test_heads_of_other_picture_sizes_keep_their_part_of_the_shorter_side(
    first: tuple[int, int], second: tuple[int, int]
) -> None:
    a, b = track_of([0.1], size=first), track_of([0.1], size=second)
    moved = join_tracks([a, b]).frames[1]
    assert (moved.width, moved.height) == first
    assert moved.translation == pytest.approx(a.frames[0].translation, abs=1e-9)
    assert moved.rotation == pytest.approx(a.frames[0].rotation)
    assert head_origin(moved.translation, *first) == pytest.approx(head_origin(a.frames[0].translation, *first))
    assert head_scale(moved.translation, *first) == pytest.approx(head_scale(a.frames[0].translation, *first))


@given(st.sampled_from([Fraction(24), Fraction(25), NTSC, Fraction(60)]), st.integers(1, 40))
def test_another_frame_rate_keeps_the_motion(fps: Fraction, length: int) -> None:
    track = track_of([0.01 * index for index in range(length)])
    found = resample(track, fps)
    assert len(found.frames) == int(Fraction(length - 1, 25) * fps) + 1
    for index, frame in enumerate(found.frames):
        assert frame.time == index / fps
        assert frame.rotation[1] == pytest.approx(0.25 * float(frame.time), abs=1e-9)
    assert resample(track, Fraction(25)) is track


def test_joined_tracks_take_the_first_ones_frame_rate() -> None:
    joined = join_tracks([track_of([0.0] * 5), track_of([0.01 * index for index in range(51)], Fraction(50))])
    assert joined.fps == 25
    assert yaw_of(joined)[5:] == pytest.approx(0.02 * np.arange(26))


@pytest.mark.parametrize("blend", [4, 100, -1])
def test_a_blend_longer_than_a_track_is_one_line(blend: int) -> None:
    with pytest.raises(FaceError, match=f"a blend of {blend} frames does not fit") as caught:
        join_tracks([track_of([0.0] * 3), track_of([0.0] * 9)], blend)
    assert "\n" not in str(caught.value)


def test_what_only_some_tracks_have_is_said() -> None:
    plain = track_of([0.0, 0.1])
    held = tuple(replace(frame, pd_fgc=np.ones(548)) for frame in plain.frames)
    rich = replace(plain, frames=held, measured=frozenset({"jawOpen"}), extractor="other", warnings=("one",))
    joined = join_tracks([rich, plain, rich])
    assert all(frame.pd_fgc is None for frame in joined.frames)
    assert joined.measured == {"jawOpen"}
    assert joined.extractor == "other, test"
    assert len(joined.warnings) == 3
    assert joined.warnings[0] == "one"
    assert "pd_fgc" in joined.warnings[2]
    same = join_tracks([rich, rich], blend=1)
    assert same.warnings == ("one",)
    assert all(frame.pd_fgc is not None for frame in same.frames)


@given(angles, angles)
def test_ways_between_faces_start_and_end_at_them(start: np.ndarray, end: np.ndarray) -> None:
    left, right = make_frame(start, (0, 0, -4)), make_frame(end, (0.1, 0, -6), 300, 300)
    for share, face in ((0.0, left), (1.0, right)):
        found = interpolate_frames(left, right, share)
        assert found.rotation == pytest.approx(face.rotation, abs=1e-9)
        assert found.translation == pytest.approx(face.translation)
        assert found.anchors["mouth_corners"] == pytest.approx(face.anchors["mouth_corners"])
    assert interpolate_frames(left, replace(right, box=None, anchors={}), 0.5).box is None


def test_a_face_on_its_way_to_one_not_found_is_not_found() -> None:
    lost: FaceFrame = replace(make_frame(), found=False)
    assert not interpolate_frames(make_frame(), lost, 0.5).found


def test_easing_rests_at_both_ends() -> None:
    way = ease(np.linspace(-0.5, 1.5, 201))
    assert (np.diff(way) >= 0).all()
    assert (way.min(), way.max(), ease(0.5)) == (0.0, 1.0, 0.5)
    assert np.diff(way)[50:52].max() < 1e-4

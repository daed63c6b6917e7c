"""Tracks that are kept: the same content, made once, never a crash."""

from __future__ import annotations

import os
import time
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_hellomeme.errors import PictureError
from lib_hellomeme.face import cache
from lib_hellomeme.face.cache import cached_track, tracked_video
from lib_hellomeme.face.landmarks import ANCHORS
from lib_hellomeme.face.track import ARKIT_NAMES, FaceFrame, FaceTrack
from tests.face.samples import make_frame
from tests.face.test_extract_video import astronaut_at
from tests.video.samples import write_video

RNG = np.random.default_rng(0)


def random_frame(index: int, found: bool = True) -> FaceFrame:
    anchors = {name: RNG.random((len(points), 2)) * 500 for name, points in ANCHORS.items()}
    rotation, coefficients = RNG.normal(size=3), RNG.random(len(ARKIT_NAMES))
    translation = np.array([0.1, 0.2, -5.0])
    box = RNG.random(4) * 500
    return FaceFrame(Fraction(index, 25), 512, 400, found, rotation, translation, coefficients, box, anchors)


def random_track(count: int) -> FaceTrack:
    frames = tuple(random_frame(index) for index in range(count))
    return FaceTrack(Fraction(25), frames, frozenset(ARKIT_NAMES[:5]), "test", ("a warning",))


def same(a: FaceTrack, b: FaceTrack) -> bool:
    header = (a.fps, a.measured, a.extractor, a.warnings) == (b.fps, b.measured, b.extractor, b.warnings)
    return header and len(a.frames) == len(b.frames) and all(map(same_frames, a.frames, b.frames))


def same_frames(a: FaceFrame, b: FaceFrame) -> bool:
    for entry in fields(FaceFrame):
        one, other = getattr(a, entry.name), getattr(b, entry.name)
        if entry.name == "anchors":
            equal = one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
        else:
            equal = type(one) is type(other) and np.array_equal(one, other)
        if not equal:
            return False
    return True


def never() -> FaceTrack:
    raise AssertionError("made again")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"content")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_it_is_made_once_and_comes_back_the_same(file, folder):
    track = random_track(5)
    bare = replace(make_frame(), box=None, anchors={})
    rich = replace(make_frame(), pd_fgc=RNG.random(548), face_parts=RNG.random((3, 1024)))
    track = replace(track, frames=(*track.frames, random_frame(5, False), bare, rich))
    assert cached_track(file, {"which": 1}, lambda: track, folder) is track
    again = cached_track(file, {"which": 1}, never, folder)
    assert same(again, track)
    for array in (again.frames[0].rotation, again.frames[0].anchors["jaw"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["full", "bare", "wide"]), min_size=1, max_size=5))
def test_any_mixture_of_frames_comes_back(kinds):
    def one(index: int, kind: str) -> FaceFrame:
        frame = random_frame(index)
        if kind == "bare":
            return replace(frame, box=None, anchors={"nose": frame.anchors["nose"][:3]})
        return replace(frame, pd_fgc=RNG.random(548)) if kind == "wide" else frame

    track = replace(random_track(1), frames=tuple(one(index, kind) for index, kind in enumerate(kinds)))
    assert same(cache._unpack(cache._pack(track)), track)


def test_other_content_and_other_settings_are_others(file, folder, monkeypatch):
    tracks = [random_track(1) for _ in range(4)]
    assert cached_track(file, {"which": 1}, lambda: tracks[0], folder) is tracks[0]
    assert cached_track(file, {"which": 2}, lambda: tracks[1], folder) is tracks[1]
    monkeypatch.setattr(cache, "_program", lambda: "a newer one")
    assert cached_track(file, {"which": 1}, lambda: tracks[2], folder) is tracks[2]
    monkeypatch.undo()
    file.write_bytes(b"other content")
    assert cached_track(file, {"which": 1}, lambda: tracks[3], folder) is tracks[3]
    copy = file.with_name("copy.mp4")
    copy.write_bytes(b"content")
    assert same(cached_track(copy, {"which": 1}, never, folder), tracks[0])


def test_again_makes_it_anew_and_keeps_the_newer(file, folder):
    old, new = random_track(1), random_track(2)
    cached_track(file, {}, lambda: old, folder)
    assert cached_track(file, {}, lambda: new, folder, again=True) is new
    assert same(cached_track(file, {}, never, folder), new)


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "text", "flipped", "other arrays", "folder"])
def test_a_damaged_entry_is_ignored_and_replaced(file, folder, damage):
    track = random_track(3)
    cached_track(file, {}, lambda: track, folder)
    (entry,) = folder.iterdir()
    data = entry.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 255
    contents = {
        "empty": b"",
        "cut": data[: len(data) // 2],
        "noise": RNG.integers(0, 255, 5000, dtype=np.uint8).tobytes(),
        "text": b"hello",
        "flipped": bytes(flipped),
    }
    if damage == "folder":
        entry.unlink()
        entry.mkdir()
    elif damage == "other arrays":
        np.savez(entry, header=np.zeros(3, np.uint8))
    else:
        entry.write_bytes(contents[damage])
    newer = random_track(3)
    assert cached_track(file, {}, lambda: newer, folder) is newer
    if damage != "folder":  # which cannot be replaced by a file
        assert same(cached_track(file, {}, never, folder), newer)


def test_where_nothing_can_be_written_nothing_is_kept(file, tmp_path):
    (tmp_path / "taken").touch()
    track = random_track(1)
    for _ in range(2):
        assert cached_track(file, {}, lambda: track, tmp_path / "taken") is track


def test_the_folder_is_bounded_and_the_longest_unused_goes(file, folder, monkeypatch):
    for index in range(4):
        cached_track(file, {"number": index}, lambda: random_track(10), folder)
    entries = list(folder.iterdir())
    monkeypatch.setattr(cache, "MAXIMUM_SIZE", round(3.5 * entries[0].stat().st_size))
    for index, entry in enumerate(entries):
        os.utime(entry, (index, index))
    used = next(index for index in range(4) if cached_track(file, {"number": index}, never, folder))
    cached_track(file, {"number": 4}, lambda: random_track(10), folder)
    assert len(list(folder.iterdir())) == 3
    cached_track(file, {"number": used}, never, folder)
    cached_track(file, {"number": 4}, never, folder)


def test_an_error_is_not_kept_and_files_that_are_none_are_said(file, folder):
    def fail() -> FaceTrack:
        raise PictureError("no video")

    for path in (file, file.with_name("none.mp4")):
        with pytest.raises(PictureError, match="no video"):
            cached_track(path, {}, fail, folder)
    track = random_track(1)
    assert cached_track(file, {}, lambda: track, folder) is track


def test_a_second_time_costs_little_more_than_hashing(file, folder):
    """20 MB and 3000 frames: 0.2 s on two free cores; here the machine may be busy."""
    file.write_bytes(RNG.integers(0, 255, 20_000_000, dtype=np.uint8).tobytes())
    track = random_track(3000)
    cached_track(file, {}, lambda: track, folder)

    def seconds() -> float:
        start = time.perf_counter()
        cached_track(file, {}, never, folder)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 0.6


def test_a_video_is_tracked_once_for_each_choice(tmp_path, folder):
    video = write_video(tmp_path / "a.mp4", [astronaut_at(200 + 3 * index, 160) for index in range(6)])
    counted: list[int] = []
    track = tracked_video(video, progress=counted.append, extractor="solutions", folder=folder)
    assert counted == [1, 2, 3, 4, 5, 6]
    assert same(tracked_video(video, progress=counted.append, extractor="solutions", folder=folder), track)
    assert len(counted) == 6
    raw = tracked_video(video, progress=counted.append, extractor="solutions", folder=folder, smoothing=0.0)
    assert len(counted) == 12
    assert not same(raw, track)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "new.task").touch()
    tracked_video(video, progress=counted.append, extractor="solutions", folder=folder, models=tmp_path / "models")
    assert len(counted) == 18


def test_frames_left_out_have_no_share_in_the_others(tmp_path, folder):
    blank = np.full((320, 480, 3), 120, np.uint8)
    pictures = [blank if 3 <= index < 6 else astronaut_at(200 + 3 * index, 160) for index in range(9)]
    video = write_video(tmp_path / "a.mp4", pictures)
    track = tracked_video(video, missing="leave out", extractor="solutions", folder=folder)
    assert [frame.found for frame in track.frames] == [not 3 <= index < 6 for index in range(9)]
    assert [frame.time for frame in track.frames] == [Fraction(index, 25) for index in range(9)]
    neutral = [frame for frame in track.frames if not frame.found]
    assert all(not frame.rotation.any() and frame.box is None for frame in neutral)
    seen = [frame for frame in track.frames if frame.found]
    assert all(frame.box is not None and frame.translation[2] < -2 for frame in seen)


def test_no_face_in_any_frame_leaves_all_out(tmp_path, folder):
    video = write_video(tmp_path / "a.mp4", [np.full((64, 64, 3), 120, np.uint8)] * 4)
    track = tracked_video(video, missing="leave out", extractor="solutions", folder=folder)
    assert [frame.found for frame in track.frames] == [False] * 4

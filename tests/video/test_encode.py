"""Pictures and sound to files and back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_hellomeme.errors import DependencyError, PictureError
from lib_hellomeme.video import encode
from lib_hellomeme.video.decode import open_video
from lib_hellomeme.video.encode import VideoWriter, check_video_path
from tests.video.samples import grey_steps, write_sound, write_video

HUNDREDTHS = [Fraction(n, 100) for n in (0, 4, 8, 20, 50, 60, 90)]


def written(path: Path, times=HUNDREDTHS, fps=Fraction(25), **more) -> Path:
    with VideoWriter(path, fps, **more) as writer:
        for picture, time in zip(grey_steps(len(times)), times, strict=True):
            writer.write(picture, time)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".gif", ".MP4"])
def test_pictures_and_times_come_back(tmp_path, suffix):
    path = written(tmp_path / "new" / f"a{suffix}")
    frames = list(open_video(path).frames())
    assert [time for _, time in frames] == HUNDREDTHS
    assert [round(picture.mean() / 10) for picture, _ in frames] == list(range(7))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("fps", [Fraction(24000, 1001), Fraction(30), Fraction(60000, 1001), Fraction(123457, 4096)])
def test_a_constant_rate_is_kept_exactly(tmp_path, fps):
    pictures = grey_steps(10)
    with VideoWriter(tmp_path / "a.mp4", fps) as writer:
        for picture in pictures:
            writer.write(picture)
    video = open_video(tmp_path / "a.mp4")
    assert [time for _, time in video.frames()] == pytest.approx([index / fps for index in range(10)], abs=6e-6)
    if fps.numerator < 90000:
        assert video.fps == fps
        assert [time for _, time in video.frames()] == [index / fps for index in range(10)]


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".gif"])
def test_coarse_clocks_do_not_drift(tmp_path, suffix):
    path, fps = tmp_path / f"a{suffix}", Fraction(24000, 1001)
    with VideoWriter(path, fps) as writer:
        for index in range(100):
            writer.write(np.full((16, 16, 3), 2 * index, np.uint8))
    times = [float(time) for _, time in open_video(path).frames()]
    assert times == pytest.approx([float(index / fps) for index in range(100)], abs=0.0051)


def test_the_last_picture_has_its_length(tmp_path):
    with av.open(str(written(tmp_path / "a.mp4"))) as container:
        stream = container.streams.video[0]
        assert stream.duration is not None
        assert stream.time_base is not None
        assert stream.duration * stream.time_base == Fraction(94, 100)


def test_times_that_stand_still_are_moved_on(tmp_path):
    path = written(tmp_path / "a.mp4", [Fraction(0), Fraction(1), Fraction(1), Fraction(1, 2), Fraction(2)])
    times = [float(time) for _, time in open_video(path).frames()]
    assert times == pytest.approx([0, 1, 1, 1, 2], abs=1e-4)
    assert sorted(set(times)) == times


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70))
def test_odd_sizes_repeat_their_edge(tmp_path_factory, height, width):
    path = tmp_path_factory.mktemp("odd") / "a.mp4"
    rising = np.linspace(60, 190, width).astype(np.uint8)
    picture = np.ascontiguousarray(np.broadcast_to(rising[None, :, None], (height, width, 3)))
    with VideoWriter(path) as writer:
        writer.write(picture)
    read = next(open_video(path).frames())[0]
    assert read.shape == (height + height % 2, width + width % 2, 3)
    assert np.abs(read[:height, :width].astype(int) - picture).mean() < 4
    assert abs(int(read[0, -1, 0]) - int(picture[0, -1, 0])) < 16


def test_colours(tmp_path):
    picture = np.zeros((64, 96, 3), np.uint8)
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    for index, colour in enumerate(colours):
        picture[:, index * 32 : (index + 1) * 32] = colour
    for suffix in (".mp4", ".webm", ".gif"):
        with VideoWriter(tmp_path / f"a{suffix}") as writer:
            for _ in range(3):
                writer.write(picture)
        read = next(open_video(tmp_path / f"a{suffix}").frames())[0]
        assert read[32, [16, 48, 80]].tolist() == [pytest.approx(colour, abs=4) for colour in colours]


def sound_of(path: Path) -> tuple[str, np.ndarray, int]:
    """Codec, loudness of all samples, samples a second."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        parts = [frame.to_ndarray().astype(np.float64) for frame in container.decode(stream)]
        peak = 32768.0 if "s16" in stream.codec_context.format.name else 1.0
        return stream.codec_context.name, np.abs(np.concatenate(parts, axis=1)[0]) / peak, stream.rate


@pytest.mark.parametrize(
    ("source", "target", "codec"),
    [
        ("aac", ".mp4", "aac"),
        ("aac", ".mkv", "aac"),
        ("pcm_s16le", ".mp4", "aac"),
        ("aac", ".webm", "opus"),
        ("libopus", ".webm", "opus"),
    ],
)
def test_sound_goes_along_and_stays_in_time(tmp_path, source, target, codec):
    """A beep from 0.5 to 0.7 s; the pictures end at 1 s and the sound at 2 s."""
    given_sound = write_sound(tmp_path / "sound.mkv", source, beep=(0.5, 0.7), seconds=2.0)
    times = [Fraction(index, 25) for index in range(25)]
    path = written(tmp_path / f"a{target}", times, sound=given_sound)
    name, loudness, rate = sound_of(path)
    assert name == codec
    assert len(loudness) / rate == pytest.approx(1.0, abs=0.09)
    loud = np.flatnonzero(loudness > 0.1) / rate
    assert loud[0] == pytest.approx(0.5, abs=0.03)
    assert loud[-1] == pytest.approx(0.7, abs=0.03)
    assert len(list(open_video(path).frames())) == 25


def test_sound_is_copied_without_loss(tmp_path):
    given_sound = write_sound(tmp_path / "sound.mp4", "aac", beep=(0.5, 0.7), seconds=1.0)
    path = written(tmp_path / "a.mp4", [Fraction(index, 25) for index in range(40)], sound=given_sound)
    before, after = packets(given_sound), packets(path)
    assert len(after) >= 40
    assert after == before


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.size]


def test_sound_begins_with_the_pictures(tmp_path):
    """The source's pictures begin 0.25 s after its sound."""
    times = [Fraction(1, 4) + Fraction(index, 25) for index in range(25)]
    source = write_sound(tmp_path / "a.mkv", "pcm_s16le", beep=(0.5, 0.7), seconds=2.0, pictures=times)
    path = written(tmp_path / "b.mp4", [Fraction(index, 25) for index in range(25)], sound=source)
    _, loudness, rate = sound_of(path)
    assert np.flatnonzero(loudness > 0.1)[0] / rate == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("name", ["silent.mp4", "none.mp4", "text.mp4"])
def test_files_without_sound_add_none(tmp_path, name):
    write_video(tmp_path / "silent.mp4", grey_steps(3))
    (tmp_path / "text.mp4").write_text("hello")
    path = written(tmp_path / "a.mp4", sound=tmp_path / name)
    with av.open(str(path)) as container:
        assert not container.streams.audio


def test_an_animation_has_no_sound(tmp_path):
    source = write_sound(tmp_path / "sound.mkv", "aac", beep=(0.5, 0.7), seconds=2.0)
    assert len(list(open_video(written(tmp_path / "a.gif", sound=source)).frames())) == 7


def test_after_an_error_nothing_is_left_and_the_old_file_stays(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")

    def stopped() -> None:
        with VideoWriter(path) as writer:
            for picture in grey_steps(20):
                writer.write(picture)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_no_pictures(tmp_path):
    with pytest.raises(PictureError, match="no pictures"), VideoWriter(tmp_path / "a.mp4"):
        pass
    assert not list(tmp_path.iterdir())


def test_other_suffixes():
    with pytest.raises(PictureError, match=r"a.avi: videos are written as .mp4"):
        check_video_path("a.avi")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PictureError, match="cannot be written"):
        written(tmp_path / "file" / "a.mp4")


@contextlib.contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """As a full disk does it: writing fails in the middle."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".gif"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, suffix):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (128, 128, 3), dtype=np.uint8) for _ in range(60)]

    def fill() -> None:
        with files_limited_to(50_000), VideoWriter(tmp_path / f"a{suffix}") as writer:
            for picture in noise:
                writer.write(picture)

    with pytest.raises(PictureError, match="cannot be written") as caught:
        fill()
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_missing_encoder_is_one_line(tmp_path, monkeypatch):
    kind = encode._KINDS[".mp4"]._replace(encoder="no_such_encoder")
    monkeypatch.setitem(encode._KINDS, ".mp4", kind)
    with pytest.raises(DependencyError, match="no_such_encoder"):
        written(tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())

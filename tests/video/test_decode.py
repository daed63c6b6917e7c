"""Any video as a stream of upright RGB pictures with exact times."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from lib_hellomeme.errors import PictureError
from lib_hellomeme.video.decode import open_video
from lib_hellomeme.video.encode import VideoWriter
from tests.video.samples import grey_steps, write_sound, write_video


def test_all_frames_come_in_order_with_their_times(tmp_path):
    video = open_video(write_video(tmp_path / "a.mp4", grey_steps(20)))
    frames = list(video.frames())
    assert video.fps == 25
    assert [time for _, time in frames] == [Fraction(index, 25) for index in range(20)]
    assert [round(picture.mean() / 10) for picture, _ in frames] == list(range(20))
    assert frames[0][0].dtype == np.uint8
    assert frames[0][0].shape == (48, 64, 3)
    assert not video.warnings
    assert len(list(video.frames())) == 20  # and again


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_about_how_many_frames_there_are_is_known_before(tmp_path, suffix):
    assert open_video(write_video(tmp_path / f"a{suffix}", grey_steps(20))).count == pytest.approx(20, abs=1)


def test_variable_frame_rate_keeps_the_exact_times(tmp_path):
    times = [Fraction(n, 100) for n in (0, 4, 5, 20, 50, 51, 90)]
    video = open_video(write_video(tmp_path / "a.mp4", grey_steps(7), times))
    assert [time for _, time in video.frames()] == times
    assert not video.warnings


def test_a_late_start_begins_at_zero(tmp_path):
    times = [Fraction(n, 25) for n in (25, 26, 27)]
    assert next(open_video(write_video(tmp_path / "a.mkv", grey_steps(3), times)).frames())[1] == 0


def test_odd_sizes(tmp_path):
    path = write_video(tmp_path / "a.mkv", grey_steps(3, 63, 47), codec="ffv1", pixel_format="bgr0")
    assert next(open_video(path).frames())[0].shape == (47, 63, 3)


def test_colours_are_red_green_blue(tmp_path):
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 200
    path = write_video(tmp_path / "a.mkv", [red], codec="ffv1", pixel_format="bgr0")
    assert next(open_video(path).frames())[0][0, 0].tolist() == [200, 0, 0]


def quarter_turned(path):
    """Writes a display matrix into the track header, as phones do: shown turned 90 degrees clockwise."""
    data = bytearray(path.read_bytes())
    track = data.index(b"tkhd")
    matrix = track + 4 + 40  # version 0: 4 flags, 20 ids and times, 8 + 4 + 4 reserved and others
    one, zero = (1 << 16).to_bytes(4, "big"), bytes(4)
    identity = one + zero * 3 + one + zero * 3 + (1 << 30).to_bytes(4, "big")
    assert bytes(data[matrix : matrix + 36]) == identity
    minus_one = (-(1 << 16)).to_bytes(4, "big", signed=True)
    data[matrix : matrix + 36] = zero + one + zero + minus_one + zero * 4 + (1 << 30).to_bytes(4, "big")
    path.write_bytes(bytes(data))
    return path


def test_rotation_by_metadata_is_applied(tmp_path):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:16, :16] = 250  # upper left, hence upper right after a clockwise turn
    frame = next(open_video(quarter_turned(write_video(tmp_path / "a.mp4", [picture] * 3))).frames())[0]
    assert frame.shape == (64, 48, 3)
    assert frame[4:12, -12:-4].mean() > 200
    assert frame[4:12, 4:12].mean() < 50


def one_line(path, words):
    with pytest.raises(PictureError, match=words) as caught:
        list(open_video(path).frames())
    assert "\n" not in str(caught.value)


def test_files_that_are_no_videos(tmp_path):
    one_line(tmp_path / "none.mp4", "no such file")
    (tmp_path / "zero.mp4").touch()
    one_line(tmp_path / "zero.mp4", "empty")
    (tmp_path / "text.mp4").write_text("hello")
    one_line(tmp_path / "text.mp4", "not a video")


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    one_line(path, "only sound")


def test_a_video_cut_off_in_its_header(tmp_path):
    path = write_video(tmp_path / "a.mp4", grey_steps(20))
    path.write_bytes(path.read_bytes()[:600])
    one_line(path, "not a video|no frame")


@pytest.mark.parametrize("damage", ["noise", "zeros", "cut"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_a_video_broken_in_the_middle_gives_the_rest_and_a_warning(tmp_path, suffix, damage):
    rng = np.random.default_rng(0)
    path = tmp_path / f"a{suffix}"
    with VideoWriter(path) as writer:
        for _ in range(60):
            writer.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    assert len(list(open_video(path).frames())) == 60
    data = path.read_bytes()
    middle = len(data) // 2
    noise = rng.integers(0, 255, 8000, dtype=np.uint8).tobytes()
    rest = {"noise": noise + data[middle + 8000 :], "zeros": bytes(8000) + data[middle + 8000 :], "cut": b""}[damage]
    path.write_bytes(data[:middle] + rest)
    video = open_video(path)
    frames = list(video.frames())
    assert 20 <= len(frames) < 60
    times = [time for _, time in frames]
    assert times == sorted(times)
    assert 1 <= len(video.warnings) <= 3
    assert all("damaged" in warning and warning.count("\n") == 0 for warning in video.warnings)


def test_recordings_one_after_the_other_go_on_in_time(tmp_path):
    """Each MPEG-TS part begins its own clock."""
    parts = [write_video(tmp_path / f"{index}.ts", grey_steps(10)).read_bytes() for index in range(2)]
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    times = [time for _, time in open_video(tmp_path / "a.ts").frames()]
    assert times == [Fraction(index, 25) for index in range(20)]


def test_long_sound_and_long_pictures_are_no_damage(tmp_path):
    times = [Fraction(index, 25) for index in range(10)]
    for suffix in (".mp4", ".mkv"):
        video = open_video(write_sound(tmp_path / f"a{suffix}", "aac", (0.5, 0.7), 3.0, pictures=times))
        assert len(list(video.frames())) == 10
        assert not video.warnings
    with VideoWriter(tmp_path / "b.mp4") as writer:
        for picture, time in zip(grey_steps(4), (0, 1, 5, 6), strict=True):
            writer.write(picture, Fraction(time))
    video = open_video(tmp_path / "b.mp4")
    assert len(list(video.frames())) == 4
    assert not video.warnings


@pytest.mark.parametrize("file_format", ["GIF", "WEBP"])
def test_animations_keep_their_durations(tmp_path, file_format):
    path = tmp_path / f"a.{file_format.lower()}"
    images = [Image.fromarray(picture) for picture in grey_steps(4)]
    images[0].save(
        path, file_format, save_all=True, append_images=images[1:], duration=[40, 100, 20, 40], lossless=True
    )
    assert open_video(path).count == 4
    frames = list(open_video(path).frames())
    assert [time for _, time in frames] == [Fraction(n, 100) for n in (0, 4, 14, 16)]
    assert [round(picture.mean() / 10) for picture, _ in frames] == [0, 1, 2, 3]


def test_a_still_is_a_video_of_one_frame(tmp_path):
    Image.fromarray(grey_steps(2)[1]).save(tmp_path / "a.png")
    assert [time for _, time in open_video(tmp_path / "a.png").frames()] == [0]


def test_too_large(tmp_path):
    Image.new("L", (9000, 10)).save(tmp_path / "a.png")
    one_line(tmp_path / "a.png", "9000 x 10 px")

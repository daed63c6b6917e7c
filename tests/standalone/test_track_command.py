"""`track` from the command line: whole files, one line for what is wrong, a warning for what was skipped."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from lib_hellomeme.face import cache
from lib_hellomeme.face.track import FaceTrack
from lib_hellomeme.standalone import track_command
from lib_hellomeme.standalone.command_line import main
from lib_hellomeme.video.decode import open_video
from lib_hellomeme.video.encode import VideoWriter
from tests.face.test_extract_video import ASTRONAUT, astronaut_at
from tests.video.samples import grey_steps, write_sound, write_video
from tests.video.test_decode import quarter_turned

Track = Callable[..., tuple[int, FaceTrack | None, list[str], list[str]]]


@pytest.fixture
def track(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Track:
    """Runs the command in a folder of its own: exit status, what it wrote, lines of stdout and of stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HELLOMEME_CACHE", str(tmp_path / "cache"))

    def run(video: str, *more: str) -> tuple[int, FaceTrack | None, list[str], list[str]]:
        try:
            status = main(["track", video, "--out", "out.json", "--extractor", "solutions", *more])
        except SystemExit as error:  # argparse ends the program by itself
            status = int(error.code or 0)
        said = capsys.readouterr()
        lines = [line for line in said.err.splitlines() if line.strip() and not re.search(r"\d/\d+ \[", line)]
        found = FaceTrack.load("out.json") if Path("out.json").exists() else None
        return status, found, said.out.splitlines(), lines

    return run


def moving(count: int = 6) -> list[np.ndarray]:
    return [astronaut_at(200 + 4 * index, 160) for index in range(count)]


def head(width: int, height: int) -> np.ndarray:
    return cv2.resize(ASTRONAUT[0:300, 75:375], (width, height), interpolation=cv2.INTER_AREA)


def test_track_preview_and_plot(tmp_path, track):
    write_video(tmp_path / "a.mp4", moving())
    status, found, out, lines = track("a.mp4", "--preview", "new/p.mp4", "--plot", "new/p.png", "--face", "0")
    assert (status, lines) == (0, [])
    assert out == ["out.json", "new/p.mp4", "new/p.png"]
    assert [frame.time for frame in found.frames] == [Fraction(index, 25) for index in range(6)]
    assert all(frame.found for frame in found.frames)
    assert len(list(open_video(tmp_path / "new" / "p.mp4").frames())) == 6
    assert Image.open(tmp_path / "new" / "p.png").width > 1000
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["p.mp4", "p.png"]


def test_the_second_time_it_is_not_looked_at_again(tmp_path, track, monkeypatch):
    write_video(tmp_path / "a.mp4", [*moving(4), np.full((320, 480, 3), 120, np.uint8)])
    _, first, _, lines = track("a.mp4")
    assert len(lines) == 1
    assert "1 of 5 frames" in lines[0]
    with monkeypatch.context() as patch:
        patch.setattr(cache, "track_video", None)
        _, second, _, again = track("a.mp4")
    assert again == lines
    assert [frame.rotation.tolist() for frame in second.frames] == [frame.rotation.tolist() for frame in first.frames]
    assert track("a.mp4", "--again", "--smoothing", "0", "--missing", "leave-out")[0] == 0


def test_progress_says_the_remaining_time(tmp_path, track, monkeypatch, capsys):
    def slowly(path: Path, which: object, missing: object, progress: Callable[[int], None], **_: object) -> FaceTrack:
        for done in (10, 20):
            time.sleep(0.4)
            progress(done)
        print(capsys.readouterr().err)
        return cache.track_video(path, extractor="solutions")

    write_video(tmp_path / "a.mp4", moving(40))
    monkeypatch.setattr(track_command, "tracked_video", slowly)
    _, _, out, _ = track("a.mp4")
    assert re.search(r"tracking: .*20/40 \[00:00<00:00, .*frame/s\]", "".join(out))


# What the file is; then what the one line says.
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "none.mp4": (lambda path: None, "no such file"),
    "zero.mp4": (lambda path: path.touch(), "empty"),
    "text.mp4": (lambda path: path.write_text("hello"), "not a video"),
    "sound.mp3": (lambda path: write_sound(path, "libmp3lame", (0.1, 0.2), 0.5), "only sound"),
    "sound.mp4": (lambda path: write_sound(path, "aac", (0.1, 0.2), 0.5), "only sound"),
    "wide.png": (lambda path: Image.new("L", (9000, 20)).save(path), "9000 x 20 px"),
    "wide.mkv": (
        lambda path: write_video(path, [np.zeros((16, 8400, 3), np.uint8)], codec="mjpeg", pixel_format="yuvj420p"),
        "8400 x 16 px",
    ),
    "track.json": (lambda path: path.write_text(json.dumps({"format": "hellomeme-face-track"})), "not a video"),
    "folder": (lambda path: path.mkdir(), "no such file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_cannot_be_tracked_are_one_line(tmp_path, track, name):
    make, words = REFUSED[name]
    make(tmp_path / name)
    status, found, out, lines = track(name, "--preview", "p.mp4", "--plot", "p.png")
    assert (status, found, out) == (1, None, [])
    assert len(lines) == 1
    assert words in lines[0]
    assert {path.name for path in tmp_path.iterdir()} <= {name, "cache"}


def test_a_header_without_frames_is_one_line(tmp_path, track):
    data = write_video(tmp_path / "whole.mkv", grey_steps(20)).read_bytes()
    (tmp_path / "a.mkv").write_bytes(data[: data.index(b"\x1f\x43\xb6\x75")])  # up to the first cluster
    status, found, _, lines = track("a.mkv")
    assert (status, found, len(lines)) == (1, None, 1)
    assert "a.mkv" in lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preview", "p.avi"], ".mp4"),
        (["--plot", "p.gif"], ".png"),
        (["--face", "tallest"], "tallest"),
        (["--face", "7"], "no face number 7"),
        (["--box", "1,2"], "0.3,0.2,0.7,0.6"),
        (["--box", "0.7,0.2,0.3,0.6"], "box"),
        (["--missing", "sometimes"], "sometimes"),
        (["--smoothing", "much"], "much"),
        (["--extractor", "magic"], "magic"),
        (["--reference", "none.png", "--face", "alike"], "none.png"),
        (["--preview", "a.mp4"], "given twice"),
        (["--preview", "a.mp4/p.mp4"], "cannot be written"),
    ],
)
def test_wrong_arguments_are_one_line_and_leave_nothing(tmp_path, track, arguments, words):
    before = write_video(tmp_path / "a.mp4", moving(2)).read_bytes()
    status, _, out, lines = track("a.mp4", *arguments)
    assert status in (1, 2)
    assert (out, len(lines)) == ([], 1)
    assert words in lines[0]
    assert (tmp_path / "a.mp4").read_bytes() == before
    assert not list(tmp_path.glob("p.*"))


def test_no_face_at_all_is_a_result_and_a_warning(tmp_path, track):
    write_video(tmp_path / "a.mp4", grey_steps(5))
    status, found, _, lines = track("a.mp4", "--preview", "p.mp4", "--plot", "p.png")
    assert (status, len(found.frames), len(lines)) == (0, 5, 1)
    assert "no face was found" in lines[0]


@pytest.mark.parametrize("damage", ["noise", "cut"])
def test_broken_in_the_middle_is_a_result_and_a_warning(tmp_path, track, damage):
    rng = np.random.default_rng(0)
    with VideoWriter(tmp_path / "a.mp4") as writer:
        for picture in moving(40):
            writer.write(np.clip(picture + rng.integers(0, 30, picture.shape), 0, 255).astype(np.uint8))
    data = (tmp_path / "a.mp4").read_bytes()
    middle, noise = len(data) // 2, rng.integers(0, 255, 60000, dtype=np.uint8).tobytes()
    (tmp_path / "a.mp4").write_bytes(data[:middle] + (noise + data[middle + 60000 :] if damage == "noise" else b""))
    status, found, _, lines = track("a.mp4", "--preview", "p.mp4")
    assert status == 0
    assert 10 <= len(found.frames) < 40
    assert any("damaged" in line for line in lines)
    assert all(line.startswith("hellomeme: ") for line in lines)
    assert len(list(open_video(tmp_path / "p.mp4").frames())) == len(found.frames)


def test_variable_frame_rate_keeps_its_times_in_track_and_preview(tmp_path, track):
    times = [Fraction(n, 100) for n in (0, 4, 5, 20, 50, 90)]
    write_video(tmp_path / "a.mp4", moving(), times)
    status, found, _, lines = track("a.mp4", "--preview", "p.mp4")
    assert (status, lines) == (0, [])
    assert [frame.time for frame in found.frames] == times
    assert [time for _, time in open_video(tmp_path / "p.mp4").frames()] == times


def test_rotation_by_metadata(tmp_path, track):
    """Stored lying on its side, as phones do; shown upright."""
    lying = np.ascontiguousarray(np.rot90(head(320, 400)))
    quarter_turned(write_video(tmp_path / "a.mp4", [lying] * 3))
    status, found, _, lines = track("a.mp4", "--preview", "p.mp4")
    assert (status, lines) == (0, [])
    assert [(frame.width, frame.height, frame.found) for frame in found.frames] == [(320, 400, True)] * 3
    assert np.abs(np.degrees([frame.rotation[2] for frame in found.frames])).max() < 20
    assert next(open_video(tmp_path / "p.mp4").frames())[0].shape == (424, 640, 3)


def test_odd_sizes(tmp_path, track):
    write_video(tmp_path / "a.mkv", [head(301, 255)] * 3, codec="ffv1", pixel_format="bgr0")
    status, found, _, lines = track("a.mkv", "--preview", "p.mp4")
    assert (status, lines) == (0, [])
    assert [(frame.width, frame.height, frame.found) for frame in found.frames] == [(301, 255, True)] * 3
    assert next(open_video(tmp_path / "p.mp4").frames())[0].shape == (280, 602, 3)


def test_8k(tmp_path, track):
    write_video(tmp_path / "a.mp4", [cv2.resize(astronaut_at(240, 160), (7680, 4320))] * 2, codec="mpeg4")
    status, found, _, lines = track("a.mp4", "--preview", "p.mp4")
    assert (status, lines) == (0, [])
    assert [(frame.width, frame.height, frame.found) for frame in found.frames] == [(7680, 4320, True)] * 2


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_a_still_is_a_video_of_one_frame(tmp_path, track, name):
    Image.fromarray(head(300, 300)).save(tmp_path / name)
    status, found, _, lines = track(name, "--preview", "p.mp4", "--plot", "p.png")
    assert (status, lines) == (0, [])
    assert [frame.found for frame in found.frames] == [True]
    assert len(list(open_video(tmp_path / "p.mp4").frames())) == 1


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_animations(tmp_path, track, name):
    first, *rest = [Image.fromarray(picture) for picture in moving(4)]
    first.save(tmp_path / name, save_all=True, append_images=rest, duration=[40, 100, 20, 40])
    status, found, _, lines = track(name, "--preview", "p.gif")
    assert (status, lines) == (0, [])
    assert [frame.time for frame in found.frames] == [Fraction(n, 100) for n in (0, 4, 14, 16)]
    assert all(frame.found for frame in found.frames)
    assert [time for _, time in open_video(tmp_path / "p.gif").frames()] == [Fraction(n, 100) for n in (0, 4, 14, 16)]


def test_a_size_that_changes_on_the_way(tmp_path, track):
    """Two MPEG-TS streams one after the other, as recordings of broadcasts are."""
    parts = []
    for width, height in ((320, 240), (240, 320)):
        path = write_video(tmp_path / "part.ts", [head(width, height)] * 4)
        parts.append(path.read_bytes())
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    status, found, _, _ = track("a.ts", "--preview", "p.mp4")
    assert status == 0
    assert len({(frame.width, frame.height) for frame in found.frames}) == 2
    assert len({picture.shape for picture, _ in open_video(tmp_path / "p.mp4").frames()}) == 1


def test_without_pyav_it_is_one_line(tmp_path, track, monkeypatch):
    write_video(tmp_path / "a.mp4", moving(2))
    monkeypatch.setitem(sys.modules, "av", None)
    status, _, _, lines = track("a.mp4")
    assert (status, len(lines)) == (1, 1)
    assert "PyAV is not installed" in lines[0]


def test_sound_goes_into_the_preview(tmp_path, track):
    write_sound(tmp_path / "a.mp4", "aac", (0.1, 0.2), 1.0, pictures=[Fraction(index, 25) for index in range(10)])
    assert track("a.mp4", "--preview", "p.mp4")[0] == 0
    with av.open(str(tmp_path / "p.mp4")) as container:
        assert len(container.streams.audio) == 1

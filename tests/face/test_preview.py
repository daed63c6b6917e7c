"""What the preview shows, and its video."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lib_hellomeme.errors import PictureError
from lib_hellomeme.face.condition import condition_image
from lib_hellomeme.face.preview import AXIS_COLOURS, CAPTION_HEIGHT, draw_preview_beside, write_preview
from lib_hellomeme.face.track import FaceFrame, FaceTrack
from lib_hellomeme.video.decode import open_video
from tests.face.samples import make_frame
from tests.video.samples import grey_steps, write_sound, write_video

GREY = np.full((300, 400, 3), 60, np.uint8)


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(picture.astype(int) - colour).max(axis=2) < 10).any())


def test_the_face_and_beside_it_the_condition():
    frame = make_frame((0.1, 0.4, 0.2), width=400, height=300)
    drawn = draw_preview_beside(GREY, frame)
    assert drawn.shape == (300 + CAPTION_HEIGHT, 800, 3)
    seen, beside, caption = drawn[:300, :400], drawn[:300, 400:], drawn[300:]
    assert all(has(seen, colour) for colour in AXIS_COLOURS)
    assert np.array_equal(beside, condition_image(frame.rotation, frame.translation, 400, 300))
    assert caption.max() > 200
    assert (GREY == 60).all()


def test_a_lost_face_has_another_colour_and_no_axes():
    frame = make_frame((0.1, 0.4, 0.2), width=400, height=300)
    lost = draw_preview_beside(GREY, replace(frame, found=False))
    assert not has(lost[:300, :400], AXIS_COLOURS[1])
    redness = [np.ptp(drawn[300:], axis=2).max() for drawn in (lost, draw_preview_beside(GREY, frame))]
    assert redness[0] > 100 > redness[1]


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (2000, 31), (4320, 7680)])
def test_any_size_is_at_most_512_px(size):
    height, width = size
    frame = make_frame(width=width, height=height)
    drawn = draw_preview_beside(np.zeros((height, width, 3), np.uint8), frame)
    assert drawn.shape[0] <= 512 + CAPTION_HEIGHT
    assert 2 <= drawn.shape[1] <= 1024


def track_of(times: list[Fraction], sizes: list[tuple[int, int]]) -> FaceTrack:
    def one(time: Fraction, size: tuple[int, int]) -> FaceFrame:
        return replace(make_frame((0.1, 0.2, 0.3), width=size[0], height=size[1]), time=time)

    return FaceTrack(Fraction(25), tuple(map(one, times, sizes)), frozenset(), "test")


def test_the_video_keeps_times_and_sound(tmp_path):
    times = [Fraction(n, 100) for n in (0, 4, 5, 20, 50, 51, 90)]
    source = write_sound(tmp_path / "a.mp4", "aac", beep=(0.2, 0.4), seconds=1.0, pictures=times)
    video, done = open_video(source), []
    write_preview(video, track_of(times, [(64, 48)] * 7), tmp_path / "b.mp4", progress=done.append)
    assert done == [1, 2, 3, 4, 5, 6, 7]
    frames = list(open_video(tmp_path / "b.mp4").frames())
    assert [time for _, time in frames] == [time for _, time in open_video(source).frames()]
    assert frames[0][0].shape == (48 + CAPTION_HEIGHT, 128, 3)
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.audio


def test_pictures_that_change_their_size_are_stretched(tmp_path):
    class Changing:
        path, fps = tmp_path / "a.mp4", Fraction(25)

        def frames(self):
            yield np.zeros((48, 64, 3), np.uint8), Fraction(0)
            yield np.zeros((96, 64, 3), np.uint8), Fraction(1, 25)

    track = track_of([Fraction(0), Fraction(1, 25)], [(64, 48), (64, 96)])
    write_preview(Changing(), track, tmp_path / "b.mp4")  # type: ignore[arg-type]
    shapes = {picture.shape for picture, _ in open_video(tmp_path / "b.mp4").frames()}
    assert shapes == {(48 + CAPTION_HEIGHT, 128, 3)}


LONG = """
import resource
import sys
from pathlib import Path
from fractions import Fraction
import numpy as np
from lib_hellomeme.face.preview import write_preview
from tests.face.test_preview import track_of

class Endless:
    fps = Fraction(25)
    def __init__(self, folder, count):
        self.path, self.count = folder / "none.mp4", count
    def frames(self):
        for index in range(self.count):
            yield np.full((128, 128, 3), index % 256, np.uint8), Fraction(index, 25)

peaks = []
track = track_of([Fraction(0)], [(128, 128)])
for count in (300, 3000):
    long = type(track)(track.fps, track.frames * count, track.measured, track.extractor)
    write_preview(Endless(Path(sys.argv[1]), count), long, Path(sys.argv[1]) / "a.mp4")
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(peaks[1] - peaks[0])
"""


def test_memory_does_not_grow_with_the_length(tmp_path):
    """300 against 3000 frames, whose previews would take 310 MB."""
    pytest.importorskip("resource")
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", LONG, str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 50


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    video = open_video(write_video(tmp_path / "a.mp4", grey_steps(3)))
    (tmp_path / "file").touch()
    with pytest.raises(PictureError, match="cannot be written"):
        write_preview(video, track_of([Fraction(n, 25) for n in range(3)], [(64, 48)] * 3), tmp_path / "file" / "b.mp4")

"""One face followed over the frames of a video."""

import itertools
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from lib_hellomeme.errors import FaceError, PictureError
from lib_hellomeme.face.extract_video import fill_missing, track_video
from lib_hellomeme.face.track import FaceFrame
from tests.face.samples import make_frame
from tests.video.samples import write_video

ASTRONAUT = skimage.data.astronaut()


def astronaut_at(
    x: float, y: float, scale: float = 1.0, turn: float = 0.0, canvas: np.ndarray | None = None
) -> np.ndarray:
    """A 480 x 320 px picture with the astronaut's face at a place, over plain grey or another picture."""
    face = ASTRONAUT[20:220, 125:325]
    matrix = cv2.getRotationMatrix2D((100.0, 110.0), turn, scale)
    matrix[:, 2] += [x - 100, y - 110]
    target = np.full((320, 480, 3), 120, np.uint8) if canvas is None else canvas
    return cv2.warpAffine(face, matrix, (480, 320), dst=target.copy(), borderMode=cv2.BORDER_TRANSPARENT)


def centre(frame: FaceFrame) -> float:
    assert frame.box is not None
    return float(frame.box[0] + frame.box[2]) / 2


def test_a_moving_and_turning_head(tmp_path):
    turns = [15 * np.sin(index / 5) for index in range(30)]
    frames = [astronaut_at(150 + 5 * index, 160, turn=turn) for index, turn in enumerate(turns)]
    seen = []
    track = track_video(write_video(tmp_path / "a.mp4", frames), progress=seen.append)
    assert seen == list(range(1, 31))
    assert [frame.time for frame in track.frames] == [Fraction(index, 25) for index in range(30)]
    assert all(frame.found for frame in track.frames)
    assert not track.warnings
    rolls = np.degrees([frame.rotation[2] for frame in track.frames])
    assert rolls - rolls.mean() == pytest.approx(np.array(turns) - np.mean(turns), abs=2.5)
    centres = np.array([centre(frame) for frame in track.frames])
    assert np.diff(centres) == pytest.approx(5.0, abs=2.5)


def test_frames_without_the_face_are_filled_and_said(tmp_path):
    blank = np.full((320, 480, 3), 120, np.uint8)
    frames = [astronaut_at(200 + 2 * index, 160) if not 8 <= index < 14 else blank for index in range(24)]
    track = track_video(write_video(tmp_path / "a.mp4", frames))
    assert [frame.found for frame in track.frames] == [not 8 <= index < 14 for index in range(24)]
    assert "not found in 6 of 24" in track.warnings[0]
    assert centre(track.frames[10]) == pytest.approx((centre(track.frames[7]) + centre(track.frames[14])) / 2, abs=6)


def test_a_video_without_any_face_still_gives_every_frame(tmp_path):
    track = track_video(write_video(tmp_path / "a.mp4", [np.full((64, 64, 3), 99, np.uint8)] * 5))
    assert len(track.frames) == 5
    assert not track.measured
    assert "no face" in track.warnings[0]


@pytest.mark.parametrize(("which", "start", "end"), [("leftmost", 110, 330), ("rightmost", 370, 150), (1, 370, 150)])
def test_people_who_pass_each_other_are_not_swapped(tmp_path, which, start, end):
    """One goes right in the upper half, the other left in the lower half."""
    frames = []
    for index in range(45):
        upper = astronaut_at(110 + 5 * index, 75, 0.7)
        frames.append(astronaut_at(370 - 5 * index, 235, 0.7, canvas=upper))
    track = track_video(write_video(tmp_path / "a.mp4", frames), which)
    centres = [centre(frame) for frame in track.frames]
    assert centres[0] == pytest.approx(start, abs=15)
    assert centres[-1] == pytest.approx(end, abs=15)
    assert max(abs(after - before) for before, after in itertools.pairwise(centres)) < 15
    assert "2 faces" in track.warnings[0]


def somebody_else_at(x: float, y: float, scale: float, canvas: np.ndarray) -> np.ndarray:
    """The astronaut's mirror image in other colours."""
    face = (ASTRONAUT[20:220, 125:325][:, ::-1, ::-1] * [0.6, 0.75, 0.9]).astype(np.uint8)
    matrix = np.array([[scale, 0.0, x - 100 * scale], [0.0, scale, y - 110 * scale]])
    return cv2.warpAffine(face, matrix, (480, 320), dst=canvas.copy(), borderMode=cv2.BORDER_TRANSPARENT)


@pytest.mark.parametrize(("which", "start", "end"), [("leftmost", 90, 390), ("rightmost", 390, 90)])
def test_people_who_cross_at_one_height_are_not_swapped(tmp_path, which, start, end):
    """One passes before the other and hides them for a while."""
    frames = []
    for index in range(51):
        behind = somebody_else_at(90 + 6 * index, 165, 0.9, np.full((320, 480, 3), 120, np.uint8))
        frames.append(astronaut_at(390 - 6 * index, 160, 0.9, canvas=behind))
    track = track_video(write_video(tmp_path / "a.mp4", frames), which)
    centres = [centre(frame) for frame in track.frames]
    assert centres[0] == pytest.approx(start, abs=15)
    assert centres[-1] == pytest.approx(end, abs=15)
    way = np.linspace(centres[0], centres[-1], len(centres))
    assert centres == pytest.approx(way, abs=40)


def test_somebody_who_comes_in_before_the_followed_face_is_not_taken_for_it(tmp_path):
    """Only one face is there at first, so only one is looked for."""
    frames = []
    for index in range(45):
        canvas = astronaut_at(150, 160, 0.9)
        frames.append(somebody_else_at(560 - 9 * index, 160, 0.9, canvas))
    track = track_video(write_video(tmp_path / "a.mp4", frames))
    centres = np.array([centre(frame) for frame in track.frames])
    assert centres == pytest.approx(centres[0], abs=25)


def test_a_face_box_chooses_the_face_of_a_video_or_places_a_drawing(tmp_path):
    both = somebody_else_at(360, 160, 0.8, astronaut_at(120, 160, 0.9))
    path = write_video(tmp_path / "a.mp4", [both] * 4)
    track = track_video(path, face_box=(0.6, 0.2, 0.95, 0.8))
    assert all(frame.found for frame in track.frames)
    assert centre(track.frames[-1]) == pytest.approx(360, abs=15)
    drawing = write_video(tmp_path / "b.mp4", [np.full((320, 480, 3), 200, np.uint8)] * 4)
    track = track_video(drawing, face_box=(0.5, 0.25, 0.75, 0.75))
    assert [frame.found for frame in track.frames] == [False] * 4
    assert centre(track.frames[3]) == pytest.approx(300)
    assert track.warnings == (
        "no face was recognised in the box; the head is assumed to look straight ahead, with a neutral face",
    )
    assert not track.measured


def test_frames_without_the_face_can_be_left_out(tmp_path):
    blank = np.full((320, 480, 3), 120, np.uint8)
    frames = [astronaut_at(200, 160) if index != 3 else blank for index in range(6)]
    track = track_video(write_video(tmp_path / "a.mp4", frames), missing="leave out")
    assert [frame.found for frame in track.frames] == [index != 3 for index in range(6)]
    assert track.frames[3].box is None
    assert "left out" in track.warnings[0]


def test_an_extractor_that_is_none(tmp_path):
    with pytest.raises(FaceError, match="no extractor 'eyes': choose auto or one of onnx, tasks"):
        track_video(write_video(tmp_path / "a.mp4", [astronaut_at(200, 160)]), extractor="eyes")


def test_a_number_that_no_face_has(tmp_path):
    with pytest.raises(FaceError, match="no face number 3; there are 1"):
        track_video(write_video(tmp_path / "a.mp4", [astronaut_at(200, 160)] * 3), 3)


def test_a_broken_file_is_one_line(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(PictureError, match="not a video"):
        track_video(tmp_path / "a.mp4")


def test_mediapipe_writes_nothing_to_the_terminal(tmp_path):
    """In a new process, as it talks only once."""
    path = write_video(tmp_path / "a.mp4", [astronaut_at(200, 160)] * 3)
    code = f"from lib_hellomeme.face.extract_video import track_video; print(len(track_video({str(path)!r}).frames))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_filling_interpolates_or_holds():
    def frame(seconds: int, angle: float, found: bool) -> FaceFrame:
        plain = make_frame((0, angle, 0), (angle, 0, -5))
        object.__setattr__(plain, "time", Fraction(seconds))
        object.__setattr__(plain, "found", found)
        return plain

    frames = [frame(0, 9, False), frame(1, 0.1, True), frame(2, 9, False), frame(5, 0.5, True), frame(6, 9, False)]
    filled = fill_missing(frames, "interpolate")
    assert [round(one.rotation[1], 6) for one in filled] == [0.1, 0.1, 0.2, 0.5, 0.5]
    assert [one.found for one in filled] == [False, True, False, True, False]
    assert [one.time for one in filled] == [0, 1, 2, 5, 6]
    assert [round(one.rotation[1], 6) for one in fill_missing(frames, "hold")] == [0.1, 0.1, 0.1, 0.5, 0.5]

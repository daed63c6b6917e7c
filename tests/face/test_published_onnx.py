"""The published signal path, on small ONNX files: its numbers are those of the published code on the same files."""

import json
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given

from lib_hellomeme.errors import CheckpointError, DependencyError, MissingFileError
from lib_hellomeme.face import published_onnx
from lib_hellomeme.face.alignment import umeyama
from lib_hellomeme.face.extract import track_picture
from lib_hellomeme.face.extract_video import track_video
from lib_hellomeme.face.fit import fit_picture
from lib_hellomeme.face.published_onnx import FILES, PublishedOnnx, Tracker
from lib_hellomeme.face.published_points import ANCHOR_ROWS, PARTS, Smoother
from tests.face.onnx_files import write_face_models
from tests.face.samples import apply, similarities
from tests.video.samples import write_video

ASTRONAUT = skimage.data.astronaut()
EXPECTED = json.loads(Path(__file__).with_name("published_signal.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_face_models(tmp_path_factory.mktemp("models"))


def clip() -> Iterator[np.ndarray]:
    """The astronaut, moving for half of the time."""
    for index in range(25):
        matrix = cv2.getRotationMatrix2D((256, 200), 3 * np.sin(index / 3), 1.2 + 0.1 * np.sin(index / 5))
        matrix[:, 2] += [100 + 4 * index * (index < 12), 30]
        empty = np.full((600, 720, 3), 90, np.uint8)
        yield cv2.warpAffine(ASTRONAUT, matrix, (720, 600), dst=empty, borderMode=cv2.BORDER_TRANSPARENT)


def test_the_detector_finds_the_published_boxes(models):
    picture = np.ascontiguousarray(next(clip())[..., ::-1])
    assert Tracker(PublishedOnnx(models)._networks)._detect(picture).tolist() == EXPECTED["boxes"]


def test_landmarks_are_followed_and_smoothed_as_published(models):
    with PublishedOnnx(models).follow(1) as find:
        found = [find(picture, Fraction(index, 25))[0] for index, picture in enumerate(clip())]
    for index, points in EXPECTED["frames"].items():
        mine = found[int(index)].anchors["published"][EXPECTED["rows"]]
        assert mine == pytest.approx(np.array(points), abs=0.01)
    assert found[7].time == Fraction(7, 25)


def test_pose_and_expression_are_the_published_ones_in_the_published_crop(models):
    frame = PublishedOnnx(models).faces(ASTRONAUT)[0]
    _, cropped, _ = fit_picture(ASTRONAUT, frame, 512, 512, "face")
    expected = EXPECTED["astronaut"]
    assert cropped.rotation == pytest.approx(expected["rotation"], abs=1e-4)
    assert cropped.translation == pytest.approx(expected["translation"], abs=1e-4)
    assert cropped.coefficients == pytest.approx(expected["coefficients"], abs=1e-3)
    assert cropped.anchors["published"][EXPECTED["rows"]] == pytest.approx(np.array(expected["landmarks"]), abs=0.02)


def test_the_whole_path_runs_on_pictures_and_videos(models, tmp_path):
    track = track_picture(ASTRONAUT, models=models)
    assert (track.extractor, len(track.measured), track.warnings) == ("published onnx", 51, ())
    followed = track_video(write_video(tmp_path / "a.mp4", list(clip())[:5]), models=models, extractor="onnx")
    assert len(followed.frames) == 5
    assert all(frame.found and frame.anchors["published"].shape == (222, 2) for frame in followed.frames)


def test_faces_that_are_too_small_for_the_published_code_are_looked_for_at_twice_the_size(models):
    """The files find a face of two thirds of the picture's width."""
    small = cv2.resize(ASTRONAUT, (120, 120), interpolation=cv2.INTER_AREA)
    face = PublishedOnnx(models).faces(small)[0]
    assert face.box is not None
    assert 48 <= (face.box[2:] - face.box[:2]).min() < 96
    assert (face.width, face.height) == (120, 120)
    assert PublishedOnnx(models).faces(cv2.resize(ASTRONAUT, (24, 24))) == []


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_one_line_or_one_warning(models, tmp_path, name):
    for file in FILES:
        if file != name:
            (tmp_path / file).symlink_to(models / file)
    with pytest.raises(MissingFileError, match=rf"^{name} is not in .*: get it from https://") as caught:
        track_picture(ASTRONAUT, models=tmp_path, extractor="onnx")
    assert "\n" not in str(caught.value)
    track = track_picture(ASTRONAUT, models=tmp_path)
    assert track.extractor == "mediapipe solutions"
    assert len(track.warnings) == 1
    assert f"the extractor onnx is left out: {name} is not in" in track.warnings[0]


@pytest.mark.parametrize("content", [b"", b"no model", None])
def test_a_damaged_file_and_another_model_are_one_line(models, tmp_path, content):
    for file in FILES:
        (tmp_path / file).write_bytes((models / file).read_bytes())
    wrong = (models / FILES[3]).read_bytes() if content is None else content
    (tmp_path / FILES[2]).write_bytes(wrong)
    with pytest.raises(CheckpointError, match=r"^hello_3dmm.onnx is (damaged|another)") as caught:
        PublishedOnnx(tmp_path)
    assert "\n" not in str(caught.value)


def test_without_onnxruntime_it_is_one_line(models, monkeypatch):
    published_onnx._load.cache_clear()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DependencyError, match=r"onnxruntime is not installed.*pip install onnxruntime"):
        PublishedOnnx(models)
    assert "onnxruntime is not installed" in track_picture(ASTRONAUT, models=models).warnings[0]


def test_nothing_is_said_where_nothing_is_there(tmp_path):
    assert track_picture(ASTRONAUT, models=tmp_path).warnings == ()


def test_smoothing_of_what_does_not_move_divides_by_nothing():
    points = np.random.default_rng(0).uniform(0, 300, (222, 2))
    smooth = Smoother()
    smooth(points, 100.0)
    assert (smooth(points.copy(), 100.0) == points).all()


def test_smoothing_keeps_most_of_a_fast_move_and_little_of_jitter():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 300, (222, 2))
    for amount, low, high in ((30.0, 0.6, 1.0), (0.05, 0.0, 0.2)):
        smooth = Smoother()
        smooth(points, 100.0)
        moved = smooth(points + amount, 100.0) - points
        for part in PARTS:
            assert low < moved[part.rows].mean() / amount < high


@given(similarities())
def test_points_by_name_give_a_known_similarity_back(matrix):
    points = np.random.default_rng(0).uniform(0, 300, (222, 2))
    moved = apply(matrix, points)
    for rows in ANCHOR_ROWS.values():
        if len(rows) > 1:
            assert umeyama(points[list(rows)], moved[list(rows)]) == pytest.approx(matrix, abs=1e-6)


def test_the_parts_by_name_share_no_point_and_what_is_smoothed_is_every_one():
    outlines = ("jaw", "nose", "right_brow", "left_brow", "right_eye", "left_eye", "mouth_outer", "mouth_inner")
    rows = [row for name in outlines for row in ANCHOR_ROWS[name]]
    assert rows == list(range(182))
    assert [row for part in PARTS for row in range(222)[part.rows]] == list(range(222))

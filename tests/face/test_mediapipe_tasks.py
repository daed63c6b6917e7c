"""MediaPipe Tasks: a damaged file with the real package, the rest on a landmarker of the same interface that answers
what a face model would. The real `face_landmarker.task` cannot be had here."""

from __future__ import annotations

import sys
from enum import Enum
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import skimage.data

from lib_hellomeme.errors import CheckpointError, DependencyError, MissingFileError
from lib_hellomeme.face import mediapipe_tasks
from lib_hellomeme.face.camera import rotation_angles, rotation_matrix
from lib_hellomeme.face.extract import track_picture
from lib_hellomeme.face.mediapipe_solutions import MediaPipeSolutions
from lib_hellomeme.face.mediapipe_tasks import FILE, MediaPipeTasks, seen_from_straight_ahead
from lib_hellomeme.face.track import ARKIT_INDEX

ASTRONAUT = skimage.data.astronaut()
ANGLES = np.radians([10.0, -25.0, 5.0])


class Landmarker:
    """Finds the astronaut, looking aside with an open mouth."""

    mesh = MediaPipeSolutions().meshes(ASTRONAUT)[0]
    options: Any = None
    times: list[int]

    @classmethod
    def create_from_options(cls, options: Any) -> Landmarker:
        self = cls()
        self.options, self.times = options, []
        return self

    def __enter__(self) -> Landmarker:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def detect(self, image: Any) -> Any:
        assert image.data.shape[0] == image.data.shape[1]
        points = self.mesh / image.data.shape[0]
        matrix = np.eye(4)
        matrix[:3, :3] = rotation_matrix(ANGLES).T
        matrix[:3, 3] = [0.0, 0.0, -60.0]
        return SimpleNamespace(
            face_landmarks=[[SimpleNamespace(x=x, y=y, z=z) for x, y, z in points]],
            face_blendshapes=[
                [
                    SimpleNamespace(category_name=name, score=score)
                    for name, score in (("_neutral", 0.9), ("jawOpen", 0.7))
                ]
            ],
            facial_transformation_matrixes=[matrix],
        )

    def detect_for_video(self, image: Any, milliseconds: int) -> Any:
        assert not self.times or milliseconds > self.times[-1]
        self.times.append(milliseconds)
        return self.detect(image)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    (tmp_path / FILE).write_bytes(b"a model")
    parts = SimpleNamespace(
        image=lambda image_format, data: SimpleNamespace(data=data),
        rgb=1,
        base=lambda model_asset_buffer: model_asset_buffer,
        mode=Enum("mode", "IMAGE VIDEO"),
        options=lambda **options: SimpleNamespace(**options),
        landmarker=Landmarker,
    )
    monkeypatch.setattr(mediapipe_tasks, "_import_tasks", lambda: parts)
    return tmp_path


@pytest.mark.parametrize("picture", [ASTRONAUT, np.pad(ASTRONAUT, ((0, 0), (0, 100), (0, 0)))])
def test_pose_is_the_matrix_and_expression_the_blendshapes(models, picture):
    track = track_picture(picture, models=models)
    frame = track.frames[0]
    assert track.extractor == "mediapipe tasks"
    assert len(track.measured) == 51
    assert frame.rotation == pytest.approx(ANGLES, abs=1e-6)
    assert frame.coefficients[ARKIT_INDEX["jawOpen"]] == 0.7
    assert frame.coefficients.sum() == 0.7
    solved = MediaPipeSolutions().faces(ASTRONAUT)[0]
    assert frame.anchors["mouth_corners"] == pytest.approx(solved.anchors["mouth_corners"], abs=1)


def test_times_of_a_video_grow_also_where_frames_are_near(models):
    with MediaPipeTasks(models).follow(1) as find:
        for time in (Fraction(0), Fraction(1, 3000), Fraction(1, 25)):
            assert find(ASTRONAUT, time)[0].time == time


@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (0.3, -0.5, 0.2)])
@pytest.mark.parametrize("place", [(0.0, 0.0, -50.0), (20.0, -10.0, -50.0)])
def test_a_face_at_the_pictures_side_is_seen_from_straight_ahead(angles, place):
    """A camera turned towards the face sees it as the middle one sees a face in the middle."""
    z = -np.array(place) / np.linalg.norm(place)
    x = np.cross([0.0, 1.0, 0.0], z)
    x /= np.linalg.norm(x)
    camera = np.stack([x, np.cross(z, x), z], axis=1)  # its axes, of a camera without roll
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = 1.1 * camera @ rotation_matrix(np.array(angles)).T, place
    found = rotation_angles(seen_from_straight_ahead(matrix).T)
    assert np.degrees(found) == pytest.approx(np.degrees(angles), abs=2.5)  # the two shortest ways differ in roll


def test_without_the_file_it_is_one_line(tmp_path):
    with pytest.raises(MissingFileError, match=rf"^{FILE} is not in .*get it from https://"):
        track_picture(ASTRONAUT, extractor="tasks", models=tmp_path)
    assert track_picture(ASTRONAUT, models=tmp_path).warnings == ()


def test_a_damaged_file_is_one_line_or_one_warning(tmp_path):
    """With the real package."""
    (tmp_path / FILE).write_bytes(b"no model")
    with pytest.raises(CheckpointError, match=f"^{FILE} is damaged") as caught:
        track_picture(ASTRONAUT, extractor="tasks", models=tmp_path)
    assert "\n" not in str(caught.value)
    track = track_picture(ASTRONAUT, models=tmp_path)
    assert track.extractor == "mediapipe solutions"
    assert len(track.warnings) == 1


def test_without_mediapipe_it_is_one_line(tmp_path, monkeypatch):
    (tmp_path / FILE).write_bytes(b"a model")
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(DependencyError, match="mediapipe is not installed, which face_landmarker"):
        MediaPipeTasks(tmp_path)

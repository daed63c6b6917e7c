"""insightface on a stand-in with the interface of its FaceAnalysis: the package and its models are not there in tests.

The stand-in's points are the average face's, seen by a known camera; so poses and similarities have to come out (to a
few degrees, as the fit's own camera looks at the box's middle).
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_hellomeme.errors import CheckpointError, DependencyError, FaceError, MissingFileError
from lib_hellomeme.face import insightface_faces
from lib_hellomeme.face.alignment import umeyama
from lib_hellomeme.face.camera import rotation_matrix
from lib_hellomeme.face.extract import track_picture
from lib_hellomeme.face.extract_video import track_video
from lib_hellomeme.face.insightface_faces import FIVE, IBUG_68, InsightFace, frame_of_points, mesh_of_points
from lib_hellomeme.face.mean_face import mean_face_with_irises
from tests.face.samples import apply, similarities
from tests.video.samples import write_video

TABLES = {"68": (IBUG_68, 68), "5": (FIVE, 5)}


def points_of(table: dict[int, int], count: int, angles: Any = (0, 0, 0), at: Any = (200, 150), width: float = 100.0):
    """(count, 3) px: the average face, from eight widths away; what the table leaves out is far off."""
    posed = mean_face_with_irises() @ rotation_matrix(np.array(angles, np.float64))
    seen = posed[:, :2] / (1 - posed[:, 2:] / 8) * [1, -1] * width + at
    points = np.full((count, 3), 1e4)
    points[list(table), :2] = seen[list(table.values())]
    return points


def face(
    angles: Any = (0, 0, 0), at: Any = (200, 150), width: float = 100.0, person: int = 0, dense: bool = True
) -> Any:
    five = points_of(FIVE, 5, angles, at, width)[:, :2]
    box = np.array([at[0] - width / 2, at[1] - width / 2, at[0] + width / 2, at[1] + width / 2], np.float32)
    found = SimpleNamespace(bbox=box, kps=five, normed_embedding=np.eye(512, dtype=np.float32)[person])
    if dense:
        found.landmark_3d_68 = points_of(IBUG_68, 68, angles, at, width)
    return found


class FaceAnalysis:
    """Its `get` answers by the picture's upper left pixel (blue, green, red)."""

    answers: ClassVar[dict[int, list[Any]]] = {}
    broken = False
    tasks: tuple[str, ...] = ("detection", "landmark_3d_68", "recognition")

    def __init__(self, name: str, root: str, allowed_modules: list[str]) -> None:
        print("find model:", name)
        assert not self.broken
        self.models = {task: object() for task in self.tasks if task in allowed_modules}

    def prepare(self, ctx_id: int, det_size: tuple[int, int]) -> None:
        print("set det-size:", det_size)

    def get(self, picture: np.ndarray) -> list[Any]:
        return self.answers[int(picture[0, 0, 0])]


def picture(blue: int) -> np.ndarray:
    made = np.zeros((300, 400, 3), np.uint8)
    made[..., 2] = blue
    return made


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    (tmp_path / "insightface" / "models" / "buffalo_l").mkdir(parents=True)
    (tmp_path / "insightface" / "models" / "buffalo_l" / "det_10g.onnx").touch()
    package, app = ModuleType("insightface"), ModuleType("insightface.app")
    package.__dict__["__spec__"] = app.__dict__["__spec__"] = insightface_faces.__spec__
    app.__dict__["FaceAnalysis"] = type("Own", (FaceAnalysis,), {"answers": {}})
    monkeypatch.setitem(sys.modules, "insightface", package)
    monkeypatch.setitem(sys.modules, "insightface.app", app)
    monkeypatch.setattr(insightface_faces.Path, "home", lambda: tmp_path / "nowhere")
    insightface_faces._analysis.cache_clear()
    return tmp_path


def answers() -> dict[int, list[Any]]:
    return sys.modules["insightface.app"].FaceAnalysis.answers


@pytest.mark.parametrize("name", TABLES)
@settings(max_examples=25)
@given(matrix=similarities())
def test_a_known_similarity_comes_back(name, matrix):
    table, count = TABLES[name]
    before = points_of(table, count)
    after = apply(matrix, before[:, :2])
    known = list(table.values())
    first, second = (mesh_of_points(points, table)[known, :2] for points in (before, after))
    assert umeyama(first, second) == pytest.approx(matrix, abs=1e-6)


@pytest.mark.parametrize("dense", [True, False])
@settings(max_examples=25, deadline=None)
@given(st.tuples(st.floats(-0.5, 0.5), st.floats(-0.6, 0.6), st.floats(-0.6, 0.6)), st.floats(40, 300))
def test_a_known_pose_comes_back(dense, angles, width):
    frame = frame_of_points(face(angles, width=width, dense=dense), 400, 300, Fraction(0))
    assert np.degrees(frame.rotation) == pytest.approx(np.degrees(angles), abs=4)
    middle = frame_of_points(face((0, 0, 0), width=width, dense=dense), 400, 300, Fraction(0))
    assert frame.translation == pytest.approx(middle.translation, rel=0.05, abs=0.01)


def test_it_says_what_it_measures_and_prints_nothing(models, capsys):
    answers()[7] = [face((0.1, 0.2, 0.0))]
    track = track_picture(picture(7), extractor="insightface", models=models)
    assert track.extractor == "insightface"
    assert track.measured == {"mouthSmileLeft", "mouthSmileRight"}
    assert track.frames[0].rotation == pytest.approx([0.1, 0.2, 0.0], abs=0.01)
    assert {"right_eye", "left_pupil"}.isdisjoint(track.frames[0].anchors)
    assert {"nose_tip", "mouth_corners", "eye_corners"} <= track.frames[0].anchors.keys()
    assert capsys.readouterr().out == ""


def test_the_face_like_the_reference_is_taken(models):
    answers()[1] = [face(person=3)]
    answers()[2] = [face(at=(100, 150), person=5, width=120), face(at=(300, 150), person=3)]
    wanted: dict[str, Any] = {"extractor": "insightface", "models": models}
    assert centre_x(track_picture(picture(2), **wanted)) == pytest.approx(100, abs=5)
    alike = track_picture(picture(2), which="alike", reference=picture(1), **wanted)
    assert centre_x(alike) == pytest.approx(300, abs=5)
    with pytest.raises(FaceError, match="no reference"):
        track_picture(picture(2), which="alike", **wanted)
    answers()[1] = []
    with pytest.raises(FaceError, match="no face in the reference"):
        track_picture(picture(2), which="alike", reference=picture(1), **wanted)


def centre_x(track: Any) -> float:
    return float(track.frames[0].box[[0, 2]].mean())


def test_without_recognition_there_is_no_likeness(models):
    sys.modules["insightface.app"].FaceAnalysis.tasks = ("detection",)
    answers()[2] = [face(dense=False), face(at=(300, 150), dense=False)]
    with pytest.raises(MissingFileError, match="no recognition model"):
        track_picture(picture(2), which="alike", reference=picture(2), extractor="insightface", models=models)
    assert not track_picture(picture(2), extractor="insightface", models=models).measured


def test_a_video(models, tmp_path):
    for value in range(256):
        answers()[value] = [face()]
    track = track_video(write_video(tmp_path / "a.mp4", [picture(9)] * 4), extractor="insightface", models=models)
    assert [frame.found for frame in track.frames] == [True] * 4


def test_what_is_missing_or_broken_is_one_line(models, tmp_path, monkeypatch):
    empty = tmp_path / "empty" / "models"
    empty.mkdir(parents=True)
    with pytest.raises(MissingFileError, match="insightface has no models here: unpack buffalo_l") as caught:
        InsightFace(empty)
    assert "\n" not in str(caught.value)
    sys.modules["insightface.app"].FaceAnalysis.broken = True
    with pytest.raises(CheckpointError, match=r"insightface's models in .* are damaged"):
        InsightFace(models)
    monkeypatch.delitem(sys.modules, "insightface.app")
    with pytest.raises(DependencyError, match="cannot be imported"):
        InsightFace(models)
    monkeypatch.setitem(sys.modules, "insightface", None)
    with pytest.raises(DependencyError, match="insightface is not installed"):
        InsightFace(models)

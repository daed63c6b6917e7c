"""FaceFrame under similarities, ways between rotations, and the file."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_hellomeme.errors import FaceError
from lib_hellomeme.face.camera import head_rectangle, rotation_matrix
from lib_hellomeme.face.track import ARKIT_NAMES, FaceFrame, FaceTrack, interpolate_rotation
from tests.face.samples import angles, apply, make_frame, similarities, sizes, translations


def rectangle(frame: FaceFrame) -> np.ndarray:
    return head_rectangle(frame.rotation, frame.translation, frame.width, frame.height)


def test_the_names_are_arkits_without_the_tongue():
    assert len(ARKIT_NAMES) == len(set(ARKIT_NAMES)) == 51
    assert "tongueOut" not in ARKIT_NAMES


@given(angles, translations, st.integers(64, 1000), st.integers(64, 1000))
def test_resizing_a_square_maps_the_rectangle_exactly(rotation, translation, old, new):
    frame = make_frame(rotation, translation, old, old)
    matrix = np.array([[new / old, 0, 0], [0, new / old, 0.0]])
    assert rectangle(frame.transformed(matrix, new, new)) == pytest.approx(apply(matrix, rectangle(frame)), abs=1e-6)


@given(translations, similarities(), sizes, sizes)
def test_a_frontal_rectangle_maps_exactly_by_any_similarity(translation, matrix, old, new):
    frame = make_frame((0, 0, 0.4), translation, *old)
    assert rectangle(frame.transformed(matrix, *new)) == pytest.approx(apply(matrix, rectangle(frame)), abs=1e-6)


@given(angles, translations, similarities(), sizes, sizes)
def test_any_rectangle_maps_but_for_its_perspective(rotation, translation, matrix, old, new):
    """Scaling a picture is not walking up to the head: the corners' depth (at most 1 of 3) is all that may differ."""
    frame = make_frame(rotation, translation, *old)
    moved = frame.transformed(matrix, *new)
    flat_old, flat_new = (orthographic(f) for f in (frame, moved))
    assert flat_new == pytest.approx(apply(matrix, flat_old), abs=1e-6)


def orthographic(frame: FaceFrame) -> np.ndarray:
    """The head rectangle seen from far away: the corners move by their x and y alone."""
    far = frame.translation * [1, 1, 1]
    corners = np.array([[-1, -1, 0], [-1, 1, 0], [1, 1, 0], [1, -1, 0.0]]) @ rotation_matrix(frame.rotation)
    scale = 4828.598903609935 * min(frame.width, frame.height) / 512 / -far[2]
    return (corners[:, :2] * 0.05 + far[:2]) * [1, -1] * scale + [frame.width / 2, frame.height / 2]


@given(angles, translations, similarities())
def test_there_and_back_is_the_same_frame(rotation, translation, matrix):
    frame = make_frame(rotation, translation)
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    back = frame.transformed(matrix, 300, 200).transformed(inverse, 512, 512)
    assert back.translation == pytest.approx(frame.translation, abs=1e-6)
    assert rotation_matrix(back.rotation) == pytest.approx(rotation_matrix(frame.rotation), abs=1e-9)
    assert back.anchors["mouth_corners"] == pytest.approx(frame.anchors["mouth_corners"], abs=1e-6)


@given(angles, angles, st.floats(0.05, 1.5))
def test_rotation_grows_with_the_weight_along_one_arc(start, end, weight):
    def degrees(a, b):
        return np.degrees(np.arccos(np.clip((np.trace(rotation_matrix(a).T @ rotation_matrix(b)) - 1) / 2, -1, 1)))

    total = degrees(start, end)
    if total < 1 or total * weight > 170:
        return
    assert degrees(start, interpolate_rotation(start, end, weight)) == pytest.approx(total * weight, abs=0.01)


@pytest.fixture
def track() -> FaceTrack:
    plain, full = make_frame((0.1, -0.2, 0.3)), make_frame()
    rng = np.random.default_rng(0)
    full = FaceFrame(
        Fraction(1001, 30000), 512, 512, False, full.rotation, full.translation, full.coefficients, None, {},
        rng.standard_normal(548).astype(np.float32), rng.standard_normal((3, 1024)).astype(np.float32),
    )  # fmt: skip
    return FaceTrack(Fraction(30000, 1001), (plain, full), frozenset({"jawOpen"}), "test", ("one", "two"))


def test_a_saved_track_comes_back_the_same(track, tmp_path):
    track.save(tmp_path / "a.json")
    again = FaceTrack.load(tmp_path / "a.json")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (again.fps, again.measured, again.extractor, again.warnings) == (
        track.fps, track.measured, track.extractor, track.warnings,
    )  # fmt: skip
    for old, new in zip(track.frames, again.frames, strict=True):
        assert (old.time, old.width, old.height, old.found) == (new.time, new.width, new.height, new.found)
        for name in ("rotation", "translation", "coefficients", "box", "pd_fgc", "face_parts"):
            before, after = getattr(old, name), getattr(new, name)
            assert (before is after is None) or (before == after).all(), name
        assert old.anchors.keys() == new.anchors.keys()
        assert all(np.array_equal(old.anchors[name], new.anchors[name]) for name in old.anchors)


BREAKS = {
    "version": lambda data: data.update(version=2),
    "not a face track": lambda data: data.update(format="else"),
    "rotation": lambda data: data["frames"][1].update(rotation=[0, 1]),
    "frame 1": lambda data: data["frames"][1].pop("translation"),
    "not finite": lambda data: data["frames"][0]["coefficients"].__setitem__(3, float("nan")),
    "coefficients": lambda data: data["frames"][0].update(coefficients="many"),
    "no coefficient named smirk": lambda data: data["measured"].append("smirk"),
    "frames cannot|frames is missing": lambda data: data.pop("frames"),
    "width": lambda data: data["frames"][0].pop("width"),
    "time": lambda data: data["frames"][0].update(time="soon"),
    "pd_fgc": lambda data: data["frames"][1].update(pd_fgc="AAAA"),
    "anchor": lambda data: data["frames"][0]["anchors"].update(mouth_corners=[1, 2, 3]),
    "fps": lambda data: data.update(fps="0/0"),
    "fps is -25; give": lambda data: data.update(fps="-25"),
    "frame 1: its time is before": lambda data: data["frames"][1].update(time="-1/2"),
    "no frame in it": lambda data: data["frames"].clear(),
}


@pytest.mark.parametrize("words", BREAKS)
def test_a_wrongly_edited_file_is_one_line(track, tmp_path, words):
    path = tmp_path / "a.json"
    track.save(path)
    data = json.loads(path.read_text())
    BREAKS[words](data)
    path.write_text(json.dumps(data))
    with pytest.raises(FaceError, match=words) as caught:
        FaceTrack.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xd8\xff", b"[1, 2]"])
def test_other_files_are_no_tracks(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(FaceError, match="not a face track"):
        FaceTrack.load(path)


def test_missing_file_and_folder(track, tmp_path):
    with pytest.raises(FaceError, match="no such file"):
        FaceTrack.load(tmp_path / "none.json")
    with pytest.raises(FaceError, match="cannot be written"):
        track.save(tmp_path / "none" / "a.json")

"""From real pictures to tracks: scikit-image's astronaut in every form that people have pictures in."""

import io

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from lib_hellomeme.errors import DependencyError, FaceError
from lib_hellomeme.face import mediapipe_solutions
from lib_hellomeme.face.extract import DEFAULT_TRANSLATION, track_picture
from lib_hellomeme.face.fit import fit_picture
from lib_hellomeme.face.landmarks import ANCHORS
from lib_hellomeme.face.pictures import read_picture
from lib_hellomeme.face.preview import draw_preview
from lib_hellomeme.face.track import FaceFrame, FaceTrack

ASTRONAUT = skimage.data.astronaut()
FACE = np.array([178.0, 84.0, 272.0, 180.0])  # px, by eye


@pytest.fixture(scope="module")
def astronaut() -> FaceFrame:
    return track_picture(ASTRONAUT).frames[0]


def box_of(frame: FaceFrame) -> np.ndarray:
    assert frame.box is not None
    return frame.box


def degrees(frame: FaceFrame) -> np.ndarray:
    return np.degrees(frame.rotation)


def test_the_astronaut_is_found_where_she_is(astronaut):
    assert astronaut.found
    assert box_of(astronaut) == pytest.approx(FACE, abs=8)
    assert np.abs(degrees(astronaut)).max() < 15
    assert astronaut.anchors.keys() == ANCHORS.keys()
    right, left = astronaut.anchors["right_pupil"][0], astronaut.anchors["left_pupil"][0]
    assert right[0] < left[0]  # her right eye is at the left of the picture


def variants() -> dict[str, np.ndarray]:
    image = Image.fromarray(ASTRONAUT)
    exif = Image.Exif()
    exif[0x0112] = 6  # a phone held upright: stored lying on its side
    rotated = io.BytesIO()
    image.transpose(Image.Transpose.ROTATE_90).save(rotated, "JPEG", exif=exif, quality=95)
    alpha = np.dstack([ASTRONAUT, np.full((512, 512), 255, np.uint8)])
    return {
        "exif": read_picture(rotated.getvalue()),
        "grey": read_picture(image.convert("L")),
        "alpha": read_picture(alpha),
        "16 bit grey": read_picture(np.asarray(image.convert("L")).astype(np.uint16) * 257),
        "palette": read_picture(image.quantize(128)),
    }


@pytest.mark.parametrize("name", variants())
def test_every_form_of_the_picture_gives_the_same_face(astronaut, name):
    frame = track_picture(variants()[name]).frames[0]
    assert frame.found
    assert box_of(frame) == pytest.approx(box_of(astronaut), abs=4)
    assert degrees(frame) == pytest.approx(degrees(astronaut), abs=4)


@pytest.mark.parametrize("side", [40, 60, 100, 2000])
def test_small_and_large_faces(side):
    """The face's width, in a picture of 1024 px or just as large as the face."""
    face = ASTRONAUT[20:220, 125:325]
    scale = side / 94
    size = round(200 * scale)
    resized = cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    canvas = np.full((max(1024, size), max(1024, size), 3), 110, np.uint8)
    canvas[-size:, :size] = resized
    frame = track_picture(canvas).frames[0]
    assert frame.found
    box = box_of(frame)
    assert box[2] - box[0] == pytest.approx(side, rel=0.15)


def test_a_face_that_fills_the_picture():
    frame = track_picture(np.ascontiguousarray(ASTRONAUT[84:182, 176:274])).frames[0]
    assert frame.found


@pytest.mark.parametrize("shape", [(512, 300), (300, 512)])
@pytest.mark.parametrize("turn", [-30, 25])
def test_pictures_that_are_not_square_do_not_skew_a_tilted_head(astronaut, shape, turn):
    """The same pixels, once in a square and once not."""
    height, width = shape
    matrix = cv2.getRotationMatrix2D((225.0, 132.0), turn, 1.3)
    matrix[:, 2] += [width / 2 - 225, height / 2 - 132]
    turned = cv2.warpAffine(ASTRONAUT, matrix, (width, height), flags=cv2.INTER_CUBIC)
    frame = track_picture(turned).frames[0]
    expected = astronaut.transformed(matrix, width, height)
    assert degrees(frame) == pytest.approx(degrees(expected), abs=5)
    assert frame.translation == pytest.approx(expected.translation, rel=0.06, abs=0.01)


def test_a_picture_without_a_face_is_a_warning_and_the_published_place():
    track = track_picture(np.full((300, 400, 3), 128, np.uint8))
    frame = track.frames[0]
    assert not frame.found
    assert (frame.translation == DEFAULT_TRANSLATION).all()
    assert not frame.coefficients.any()
    assert len(track.warnings) == 1
    assert "no face" in track.warnings[0]


def test_the_default_place_is_where_the_published_crop_puts_a_face(astronaut):
    _, cropped, _ = fit_picture(ASTRONAUT, astronaut, 512, 512, "face")
    assert cropped is not None
    # Her face lies higher than the crop would like, as the picture ends above her.
    assert cropped.translation[2] == pytest.approx(DEFAULT_TRANSLATION[2], rel=0.1)
    assert cropped.translation[0] == pytest.approx(DEFAULT_TRANSLATION[0], abs=0.01)


def test_of_several_faces_the_largest_is_taken_and_the_box_chooses_another():
    both = np.full((512, 900, 3), 120, np.uint8)
    both[:, :512] = ASTRONAUT
    both[100:400, 560:860] = cv2.resize(ASTRONAUT[20:220, 125:325], (300, 300), interpolation=cv2.INTER_CUBIC)
    track = track_picture(both)
    assert box_of(track.frames[0])[0] > 560
    assert "2 faces" in track.warnings[0]
    chosen = track_picture(both, face_box=(160 / 900, 70 / 512, 290 / 900, 190 / 512))
    assert box_of(chosen.frames[0]) == pytest.approx(FACE, abs=8)
    assert not chosen.warnings


def test_a_drawing_in_a_manual_box_is_placed_by_the_box(astronaut):
    """An empty box where the astronaut's face was gives nearly her place and size."""
    blank = np.full_like(ASTRONAUT, 128)
    track = track_picture(blank, face_box=tuple((box_of(astronaut) / 512).tolist()))
    frame = track.frames[0]
    assert not frame.found
    assert not track.measured
    assert "box" in track.warnings[0]
    assert frame.translation[2] == pytest.approx(astronaut.translation[2], rel=0.1)
    assert frame.translation[:2] == pytest.approx(astronaut.translation[:2], abs=0.03)


@pytest.mark.parametrize("box", [(0.5, 0.5, 0.5, 0.9), (0.9, 0.1, 0.2, 0.5), (0.1, 0.2, 0.3), (2, 2, 3, 3)])
def test_a_box_that_is_none_is_one_line(box):
    with pytest.raises(FaceError, match="draw it again"):
        track_picture(ASTRONAUT, face_box=box)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 2)])
def test_absurdly_small_pictures_are_no_accident(shape):
    picture = np.zeros((*shape, 3), np.uint8)
    track = track_picture(picture)
    assert not track.frames[0].found
    assert fit_picture(picture, track.frames[0], 64, 64, "face")[0].shape == (64, 64, 3)


def test_the_track_survives_its_file(astronaut, tmp_path):
    track = track_picture(ASTRONAUT)
    track.save(tmp_path / "track.json")
    again = FaceTrack.load(tmp_path / "track.json")
    assert again.measured == track.measured
    assert (again.frames[0].rotation == track.frames[0].rotation).all()


def test_preview_has_the_pictures_shape_and_more_in_it(astronaut):
    preview = draw_preview(ASTRONAUT, astronaut)
    assert preview.shape == ASTRONAUT.shape
    assert (preview != ASTRONAUT).any(axis=2).mean() > 0.03
    wide = draw_preview(np.zeros((900, 1800, 3), np.uint8), astronaut.transformed(np.eye(2, 3), 1800, 900))
    assert wide.shape == (384, 768, 3)


def test_without_mediapipe_there_is_one_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mediapipe", None)
    with pytest.raises(DependencyError, match="mediapipe is not installed"):
        track_picture(ASTRONAUT)


def test_a_mediapipe_without_solutions_is_one_line(monkeypatch):
    module = type(mediapipe_solutions)("mediapipe")
    module.__dict__["__version__"] = "0.99"
    module.__spec__ = mediapipe_solutions.__spec__
    monkeypatch.setitem(__import__("sys").modules, "mediapipe", module)
    with pytest.raises(DependencyError, match=r"mediapipe 0\.99 has no face models"):
        track_picture(ASTRONAUT)


def test_native_logs_are_dropped_and_other_lines_kept(capfd):
    import os

    with mediapipe_solutions.quiet_native_logs():
        os.write(2, b"W0000 00:00:1795180533.914518    6118 inference_feedback_manager.cc:114] Feedback\nkeep me\n")
    assert capfd.readouterr().err == "keep me\n"

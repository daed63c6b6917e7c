"""The published convention: goldens, inverses, signs."""

import numpy as np
import pytest
from hypothesis import given

from lib_hellomeme.face import camera
from tests.face.samples import GEOMETRY, angles, sizes, translations


@pytest.mark.parametrize("case", GEOMETRY["rotation"])
def test_golden_rotation(case):
    assert camera.rotation_matrix(np.array(case["angles_rad"][0])) == pytest.approx(np.array(case["matrix"]), abs=1e-9)


@pytest.mark.parametrize("case", GEOMETRY["pose_rect"])
def test_golden_pose_rect(case):
    rotation, translation = np.array(case["angles_rad"][0]), np.array(case["translation"][0])
    found = camera.head_rectangle(rotation, translation, case["size"], case["size"], camera.FOCAL_LENGTH)
    assert found == pytest.approx(np.array(case["rect_px"]), abs=1e-4)


@given(angles)
def test_angles_and_matrix_are_inverse(rotation):
    assert camera.rotation_angles(camera.rotation_matrix(rotation)) == pytest.approx(rotation, abs=1e-9)


@given(translations, sizes)
def test_translation_and_origin_are_inverse(translation, size):
    origin, scale = camera.head_origin(translation, *size), camera.head_scale(translation, *size)
    assert camera.head_translation(origin, scale, *size) == pytest.approx(translation, abs=1e-9)


@given(angles, translations, sizes)
def test_rectangle_in_a_wider_picture_only_moves(rotation, translation, size):
    side = min(size)
    square = camera.head_rectangle(rotation, translation, side, side)
    wide = camera.head_rectangle(rotation, translation, *size)
    assert wide - np.array(size) / 2 == pytest.approx(square - side / 2, abs=1e-6)


@pytest.mark.parametrize(("axis", "moved", "sign"), [(0, 1, 1), (1, 0, 1)])
def test_positive_pitch_lowers_the_nose_and_positive_yaw_turns_it_right(axis, moved, sign):
    rotation = np.zeros(3)
    rotation[axis] = 0.3
    nose = np.array([0.0, 0.0, 1.0]) @ camera.rotation_matrix(rotation)
    in_picture = nose[:2] * [1.0, -1.0]
    assert np.sign(in_picture[moved]) == sign

"""The published alignments and crop, as in face_geometry_and_windows.json."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_hellomeme.face import alignment
from tests.face.samples import GEOMETRY, apply, similarities, sizes


@pytest.mark.parametrize("case", GEOMETRY["warp_pd_fgc"])
def test_golden_warp_pd_fgc(case):
    assert alignment.pd_fgc_matrix(np.array(case["points_px"])) == pytest.approx(np.array(case["matrix"]), abs=1e-4)


@pytest.mark.parametrize("case", GEOMETRY["face_parts_align"])
def test_golden_face_parts_align(case):
    found = alignment.face_parts_matrix(np.array(case["points_px"]), case["size"], case["size"])
    assert found == pytest.approx(np.array(case["matrix"]), abs=1e-4)


@pytest.mark.parametrize("case", GEOMETRY["warp_bbox"])
def test_golden_warp_bbox(case):
    landmarks, ratio = np.array(case["landmarks_px"]), case["expand_ratio"]
    found = alignment.bounding_box_matrix(landmarks, case["base_angle_deg"], case["dst_size"], ratio)
    assert found == pytest.approx(np.array(case["matrix"]), abs=1e-4)


@pytest.mark.parametrize("case", GEOMETRY["crop"])
def test_golden_crop(case):
    landmarks, (height, width) = np.array(case["landmarks_px"]), case["frame_size_hw"]
    boxes = np.concatenate([landmarks.min(axis=1), landmarks.max(axis=1)], axis=1)
    x0, y0, x1, y1 = alignment.crop_window(boxes, (width, height), (1, 1))
    after = (landmarks - [x0, y0]) * case["save_size"] / np.array([x1 - x0, y1 - y0])
    assert after == pytest.approx(np.array(case["landmarks_after_px"]), abs=1e-4)


@given(similarities(), st.integers(0, 2**32 - 1))
def test_umeyama_finds_a_known_similarity(matrix, seed):
    points = np.random.default_rng(seed).uniform(0, 512, (5, 2))
    assert alignment.umeyama(points, apply(matrix, points)) == pytest.approx(matrix, abs=1e-6)


def test_umeyama_never_mirrors():
    points = np.random.default_rng(0).uniform(0, 512, (5, 2))
    assert np.linalg.det(alignment.umeyama(points, points * [-1, 1])[:, :2]) > 0


@given(sizes, sizes, st.floats(0.05, 0.9), st.floats(0, 1), st.floats(0, 1))
def test_crop_lies_inside_and_has_the_output_shape(picture_size, shape, extent, x, y):
    width, height = picture_size
    face = extent * min(picture_size)
    left, top = x * (width - face), y * (height - face)
    x0, y0, x1, y1 = alignment.crop_window(np.array([[left, top, left + face, top + face]]), picture_size, shape)
    assert min(x0, y0) >= 0
    assert x1 <= width
    assert y1 <= height
    assert abs((x1 - x0) - (y1 - y0) * shape[0] / shape[1]) <= 2 * max(1, shape[0] / shape[1])

"""Pictures and heads are fitted together."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_hellomeme.face.camera import head_origin
from lib_hellomeme.face.fit import fit_picture
from tests.face.samples import apply, make_frame

MODES = ("face", "crop", "pad", "stretch")


def boxless(picture):
    return replace(make_frame(width=picture.shape[1], height=picture.shape[0]), box=None)


small = st.tuples(st.integers(40, 300), st.integers(40, 300))


@settings(deadline=None)
@given(small, small, st.sampled_from(MODES))
def test_the_output_has_the_size_and_the_head_moves_with_it(old, new, how):
    frame = make_frame((0.2, 0.1, 0.0), (0.05, 0.02, -5), *old)
    picture = np.zeros((old[1], old[0], 3), np.uint8)
    fitted, moved, matrix = fit_picture(picture, frame, new[0], new[1], how)
    assert fitted.shape == (new[1], new[0], 3)
    assert (moved.width, moved.height) == new
    before = head_origin(frame.translation, *old)[None]
    assert head_origin(moved.translation, *new) == pytest.approx(apply(matrix, before)[0], abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(small, small, st.sampled_from(MODES))
def test_the_matrix_says_where_pixels_went(old, new, how):
    """A bright spot at the face's middle is found where the matrix says."""
    frame = make_frame(width=old[0], height=old[1])
    assert frame.box is not None
    centre = (frame.box[:2] + frame.box[2:]) / 2
    if how == "crop":
        centre = np.array(old) / 2
    y, x = np.mgrid[: old[1], : old[0]] + 0.5
    spot = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * (0.05 * min(old)) ** 2))
    picture = np.repeat((spot * 255).astype(np.uint8)[..., None], 3, axis=2)
    fitted, _, matrix = fit_picture(picture, frame, new[0], new[1], how)
    weights = np.where(fitted[..., 0] > 40, fitted[..., 0], 0).astype(np.float64)
    y, x = np.mgrid[: new[1], : new[0]] + 0.5
    found = np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()
    tolerance = 1.0 + 0.5 * np.abs(matrix[:, :2]).max()
    assert found == pytest.approx(apply(matrix, centre[None])[0], abs=tolerance)


def test_face_without_a_box_is_the_centred_crop():
    picture = np.random.default_rng(0).integers(0, 255, (100, 200, 3), dtype=np.uint8)
    face, frame, _ = fit_picture(picture, boxless(picture), 64, 64, "face")
    assert frame.box is None
    assert (face == fit_picture(picture, boxless(picture), 64, 64, "crop")[0]).all()


def test_face_is_the_published_crop():
    """A third of the side, and 0.115 sides below the middle."""
    picture = np.zeros((2000, 2000, 3), np.uint8)
    frame = make_frame(width=2000, height=2000)
    object.__setattr__(frame, "box", np.array([900.0, 900.0, 1100.0, 1080.0]))
    _, moved, _ = fit_picture(picture, frame, 512, 512, "face")
    assert moved.box is not None
    assert moved.box[2] - moved.box[0] == pytest.approx(512 / 3, abs=1)
    assert (moved.box[1] + moved.box[3]) / 2 == pytest.approx(512 * 0.615, abs=1)


def test_pad_keeps_the_whole_picture_and_repeats_its_edges():
    picture = np.full((100, 50, 3), 7, np.uint8)
    fitted, _, matrix = fit_picture(picture, boxless(picture), 200, 200, "pad")
    assert (fitted == 7).all()
    assert matrix == pytest.approx(np.array([[2, 0, 50], [0, 2, 0.0]]))


def test_shrinking_averages():
    """A fine chequerboard becomes grey instead of aliasing."""
    board = np.repeat((np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None], 3, 2)
    fitted, _, _ = fit_picture(board, boxless(board), 100, 100, "stretch")
    assert fitted.std() < 12
    assert cv2.resize(board, (100, 100), interpolation=cv2.INTER_CUBIC).std() > 40

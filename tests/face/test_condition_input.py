"""What control networks are given keeps the pose where pictures are small and networks look at few of their px."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib_hellomeme.face.condition import condition_image, condition_input, condition_tensor
from tests.face.samples import make_frame


def looked_at(condition: np.ndarray, factor: int) -> np.ndarray:
    """As control networks shrink it."""
    size = (condition.shape[1] // factor, condition.shape[2] // factor)
    return F.interpolate(torch.from_numpy(condition)[None], size=size, mode="bilinear")[0].numpy()


@pytest.mark.parametrize("factor", [4, 8])
def test_every_cell_of_a_small_picture_is_a_mean(factor):
    frame = make_frame(rotation=(0.1, -0.2, 0.3))
    fine = condition_tensor(condition_image(frame.rotation, frame.translation, 512, 512))
    means = F.adaptive_avg_pool2d(torch.from_numpy(fine), 128 // factor).numpy()
    given = looked_at(condition_input(frame.rotation, frame.translation, 128, 128), factor)
    assert np.abs(given - means).max() < 2 / 127.5


def test_a_small_shift_is_seen():
    frame = make_frame()
    moved = make_frame(translation=np.add(frame.translation, [0.002, 0, 0]))  # 0.24 px
    pictures = [condition_input(one.rotation, one.translation, 128, 128) for one in (frame, moved)]
    assert np.abs(looked_at(pictures[0], 8) - looked_at(pictures[1], 8)).max() > 0.02


@pytest.mark.parametrize(("width", "height"), [(512, 512), (640, 512)])
def test_large_pictures_are_the_published_ones(width, height):
    frame = make_frame()
    published = condition_tensor(condition_image(frame.rotation, frame.translation, width, height))
    assert np.array_equal(condition_input(frame.rotation, frame.translation, width, height), published)

"""The drawn condition image agrees with the goldens in at least 97 % of the lit pixels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from lib_hellomeme.face.condition import condition_image, condition_input, condition_tensor
from lib_hellomeme.face.edit import retarget
from lib_hellomeme.settings import Settings
from tests.face.samples import GEOMETRY, make_frame
from tests.goldens_format import FOLDER

CASE = GEOMETRY["pose_condition"]


def agreement(ours: np.ndarray, published: np.ndarray) -> float:
    lit = ours.any(axis=2) | published.any(axis=2)
    return float((ours == published).all(axis=2)[lit].mean())


def golden_condition(ratio: float, index: int) -> tuple[np.ndarray, np.ndarray]:
    drivers = [make_frame(r[0], t[0]) for r, t in zip(CASE["drive_angles"], CASE["drive_translations"], strict=True)]
    reference = make_frame(translation=CASE["reference_translation"][0])
    frame = retarget(drivers[index], reference, Settings(shift_gain=ratio), first=drivers[0])
    published = np.array(Image.open(FOLDER / f"pose_condition.ratio{ratio}.frame{index}.png").convert("RGB"))
    return condition_image(frame.rotation, frame.translation, CASE["size"], CASE["size"]), published


@pytest.mark.parametrize("ratio", CASE["translation_ratios"])
@pytest.mark.parametrize("index", range(3))
def test_golden_pose_condition(ratio, index):
    assert agreement(*golden_condition(ratio, index)) >= 0.97


def test_the_measure_notices_one_pixel():
    ours, published = golden_condition(0.0, 1)
    assert agreement(np.roll(ours, 1, axis=1), published) < 0.97


def test_lines_scale_with_the_shorter_side():
    frame = make_frame()
    small = (condition_image(frame.rotation, frame.translation, 256, 384) > 0).any(axis=2).sum()
    large = (condition_image(frame.rotation, frame.translation, 512, 768) > 0).any(axis=2).sum()
    assert large / small == pytest.approx(4.0, rel=0.1)


def test_tensor_is_red_green_blue_in_unit_range():
    image = np.zeros((2, 3, 3), np.uint8)
    image[0, 0] = (255, 0, 0)
    tensor = condition_tensor(image)
    assert tensor.shape == (3, 2, 3)
    assert tensor.dtype == np.float32
    assert tensor[:, 0, 0].tolist() == [1.0, -1.0, -1.0]


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

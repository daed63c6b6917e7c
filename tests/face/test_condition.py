"""The drawn condition image agrees with the goldens in at least 97 % of the lit pixels."""

import numpy as np
import pytest
from PIL import Image

from lib_hellomeme.face.condition import condition_image, condition_tensor
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

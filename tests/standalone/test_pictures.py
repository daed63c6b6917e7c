from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lib_hellomeme.errors import PictureError
from lib_hellomeme.standalone.pictures import save_picture
from lib_hellomeme.standalone.sheet import contact_sheet

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["a.png", "b.JPG", "c.webp", "deep/er/d.png"])
def test_pictures_are_written_in_the_suffixs_format(tmp_path, name):
    save_picture(PICTURE, tmp_path / name)
    with Image.open(tmp_path / name) as image:
        assert image.size == (60, 40)
        assert name.lower().endswith("png") == np.array_equal(np.asarray(image), PICTURE)


@pytest.mark.parametrize("name", ["a", "a.gif", "a.safetensors", "folder.png", "file/a.png"])
def test_what_cannot_be_written_is_one_line(tmp_path, name):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(PictureError) as caught:
        save_picture(PICTURE, tmp_path / name)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.part"))


def test_a_sheet_holds_every_picture():
    bright = np.full((30, 90, 3), 200, np.uint8)
    dark = np.full((90, 30, 3), 10, np.uint8)
    sheet = contact_sheet([[("bright", bright)], [("dark", dark), ("bright", bright)]], side=90, title="title")
    assert (sheet == 200).all(-1).sum() >= 2 * 30 * 90
    assert (sheet == 10).all(-1).sum() >= 30 * 90

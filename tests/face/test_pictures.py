"""Whatever people drop in becomes RGB uint8, or one line."""

import contextlib
import io
import warnings

import numpy as np
import pytest
from PIL import Image

from lib_hellomeme.errors import PictureError
from lib_hellomeme.face.pictures import MAXIMUM_SIDE, read_mask, read_picture

COLOURS = np.array([[[255, 0, 0], [0, 128, 255]], [[10, 20, 30], [255, 255, 255]], [[0, 0, 0], [90, 90, 90]]], np.uint8)
GREY = np.array([[0, 64, 128], [192, 255, 3]], np.uint8)


def encoded(image: Image.Image, file_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("wrap", [bytes, io.BytesIO], ids=["bytes", "file"])
def test_png_from_bytes_and_file(tmp_path, wrap):
    data = encoded(Image.fromarray(COLOURS))
    if wrap is bytes:
        assert (read_picture(data) == COLOURS).all()
    else:
        (tmp_path / "ä b.png").write_bytes(data)
        assert (read_picture(tmp_path / "ä b.png") == COLOURS).all()
        assert (read_picture(str(tmp_path / "ä b.png")) == COLOURS).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation):
    # What a camera would store for each orientation, so that the upright picture is COLOURS.
    stored = {
        1: COLOURS, 2: COLOURS[:, ::-1], 3: COLOURS[::-1, ::-1], 4: COLOURS[::-1],
        5: COLOURS.transpose(1, 0, 2), 6: np.rot90(COLOURS, 1), 7: np.rot90(COLOURS, 2).transpose(1, 0, 2),
        8: np.rot90(COLOURS, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    assert (read_picture(data) == COLOURS).all()


def test_grey_palette_and_one_bit():
    grey = np.repeat(GREY[:, :, None], 3, axis=2)
    assert (read_picture(encoded(Image.fromarray(GREY))) == grey).all()
    palette = Image.fromarray(COLOURS).quantize(6)
    assert (read_picture(encoded(palette)) == np.array(palette.convert("RGB"))).all()
    assert set(np.unique(read_picture(encoded(Image.fromarray(GREY).convert("1"))))) <= {0, 255}


def test_sixteen_bits_keep_their_brightness():
    deep = GREY.astype(np.uint16) * 257
    grey = np.repeat(GREY[:, :, None], 3, axis=2)
    for source in (encoded(Image.fromarray(deep)), Image.fromarray(deep.astype(np.int32)), deep, deep[:, :, None]):
        assert np.abs(read_picture(source).astype(int) - grey).max() <= 1


def test_transparency_lies_over_white():
    picture = np.dstack([COLOURS, np.full(COLOURS.shape[:2], 0, np.uint8)])
    picture[0, 0, 3] = 255
    picture[0, 1, 3] = 128
    for source in (picture, encoded(Image.fromarray(picture)), Image.fromarray(picture)):
        found = read_picture(source)
        assert found[0, 0].tolist() == [255, 0, 0]
        assert found[0, 1].tolist() == [127, 191, 255]
        assert (found[1:] == 255).all()


def test_palette_and_grey_with_transparency():
    image = Image.fromarray(GREY).convert("P")
    data = encoded(image, transparency=0)
    assert read_picture(data)[0, 0].tolist() == [255, 255, 255]
    assert (read_picture(Image.fromarray(GREY).convert("LA")) == np.repeat(GREY[:, :, None], 3, axis=2)).all()


def test_cmyk():
    image = Image.fromarray(np.repeat(COLOURS, 8, axis=0).repeat(8, axis=1)).convert("CMYK")
    assert read_picture(encoded(image, "TIFF"))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_arrays_of_either_range(dtype):
    assert np.abs(read_picture((COLOURS / 255).astype(dtype)).astype(int) - COLOURS).max() <= 1
    assert np.abs(read_picture(COLOURS.astype(dtype)).astype(int) - COLOURS).max() <= 1


def test_bool_and_nan():
    assert read_picture(np.eye(2, dtype=bool))[0, 0].tolist() == [255] * 3
    assert read_picture(np.array([[np.nan, 1.0]]))[0, 0].tolist() == [0] * 3


def test_first_frame_of_an_animation():
    first, second = Image.fromarray(COLOURS), Image.fromarray(255 - COLOURS)
    data = encoded(first, "WEBP", save_all=True, append_images=[second], lossless=True)
    assert (read_picture(data) == COLOURS).all()


def one_line(source, words: str) -> None:
    with pytest.raises(PictureError, match=words) as caught:
        read_picture(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_cut_off_files_are_one_line_or_a_picture(file_format, part):
    """Some decoders hand out the rows they have; what may not happen is anything else than PictureError."""
    rng = np.random.default_rng(0)
    data = encoded(Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)), file_format)
    with contextlib.suppress(PictureError):
        assert read_picture(data[: int(len(data) * part)]).shape == (64, 64, 3)


def test_truncated_png_is_refused():
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)))
    one_line(data[: len(data) // 2], "damaged or cut off")


def test_not_pictures(tmp_path):
    one_line(b"", "empty")
    one_line(b"hello, I am text", "not a picture")
    (tmp_path / "zero.png").touch()
    one_line(tmp_path / "zero.png", r"zero\.png is empty")
    one_line(tmp_path / "none.png", "no such file")
    one_line(tmp_path, "no such file")
    one_line(np.zeros((4, 4, 7), np.uint8), "not a picture")
    one_line(np.zeros((0, 4, 3), np.uint8), "no pixels")
    one_line(np.array([["a", "b"]]), "not a picture")


def test_a_12000_px_picture_is_refused_before_it_is_decoded():
    data = encoded(Image.new("L", (12000, 12000)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        one_line(data, f"12000 x 12000 px; scale it down to at most {MAXIMUM_SIDE}")


def test_decompression_bomb_is_refused():
    one_line(encoded(Image.new("1", (30000, 30000))), "too large|scale it down")


def test_large_arrays_are_refused_without_copies():
    one_line(np.broadcast_to(np.uint8(0), (9000, 9000, 3)), "9000 x 9000 px")


def test_a_mask_is_what_is_opaque_or_else_what_is_bright() -> None:
    layer = np.zeros((4, 6, 4), np.uint8)
    layer[1:3, :, 3] = 200
    assert np.array_equal(read_mask(layer), layer[:, :, 3])
    painted = np.full((4, 6, 4), 255, np.uint8)
    painted[1:3, :, :3] = 0
    for same in (painted, painted[:, :, :3], painted[:, :, 0], Image.fromarray(painted), painted[:, :, 0] > 0):
        assert np.array_equal(read_mask(same), painted[:, :, 0])
    with pytest.raises(PictureError):
        read_mask(b"no picture")

"""Pictures from any source as RGB arrays, or one line that says what is wrong with them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lib_hellomeme.errors import PictureError

MAXIMUM_SIDE = 8192  # px; SD1.5 draws far smaller pictures, and a decoded 8192 px square already takes 200 MB

PictureSource = str | Path | bytes | np.ndarray | Image.Image
Finish = Callable[[np.ndarray], np.ndarray]  # of an array of any number of channels


def read_picture(source: PictureSource) -> np.ndarray:
    """Any picture to RGB uint8 (H, W, 3): EXIF rotation applied, transparency over white, an animation's first frame.

    Arrays may be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), of bool, uint8, uint16 or floats in [0, 1] (or [0, 255]).
    Raises PictureError for anything that is not a whole picture with sides up to MAXIMUM_SIDE.
    """
    return _read(source, _flatten)


def read_mask(source: PictureSource) -> np.ndarray:
    """Any picture to a mask, uint8 (H, W): the opacity of one with transparent parts, as drawn layers are; else the
    brightness. Raises as `read_picture`."""
    return _read(source, _coverage)


def _read(source: PictureSource, finish: Finish) -> np.ndarray:
    if isinstance(source, np.ndarray):
        return finish(_eight_bits(source))
    if isinstance(source, Image.Image):
        return _decode(source, "the picture", finish)
    if isinstance(source, bytes):
        return _open(io.BytesIO(source), "the picture", len(source), finish)
    path = Path(source)
    if not path.is_file():
        raise PictureError(f"{path}: there is no such file; choose an existing picture")
    return _open(path, path.name, path.stat().st_size, finish)


def _open(file: io.BytesIO | Path, name: str, size: int, finish: Finish) -> np.ndarray:
    if size == 0:
        raise PictureError(f"{name} is empty (0 bytes); choose another picture")
    try:
        with Image.open(file) as image:
            return _decode(image, name, finish)
    except PictureError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(f"{name} is too large; scale it down to at most {MAXIMUM_SIDE} px a side") from error
    except UnidentifiedImageError as error:
        raise PictureError(f"{name} is not a picture that can be read; save it as PNG or JPEG") from error
    except Exception as error:  # decoders of damaged files raise what they like: struct.error, SyntaxError, ...
        raise PictureError(f"{name} is damaged or cut off; save or download it again") from error


def _decode(image: Image.Image, name: str, finish: Finish) -> np.ndarray:
    """The header is looked at before any pixel is decoded."""
    _check_size(image.width, image.height, name)
    try:
        upright = ImageOps.exif_transpose(image)
        return finish(_eight_bits(_plain_array(upright)))
    except PictureError:
        raise
    except Exception as error:  # as above
        raise PictureError(f"{name} is damaged or cut off; save or download it again") from error


def _check_size(width: int, height: int, name: str) -> None:
    if max(width, height) > MAXIMUM_SIDE:
        raise PictureError(f"{name} is {width} x {height} px; scale it down to at most {MAXIMUM_SIDE} px a side")
    if min(width, height) < 1:
        raise PictureError(f"{name} has no pixels; choose another picture")


def _plain_array(image: Image.Image) -> np.ndarray:
    """A PIL image as an array of one of the kinds that `read_picture` takes."""
    if image.mode.startswith("I"):  # 16-bit grey; older Pillow opens it in the 32-bit mode "I"
        return np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
    if image.mode == "F":
        return np.asarray(image)
    if image.mode in ("PA", "LA", "La", "RGBa", "RGBA") or "transparency" in image.info:
        return np.asarray(image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def _eight_bits(array: np.ndarray[Any, Any]) -> np.ndarray:
    """Any kind of number to uint8."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise PictureError(f"an array of shape {array.shape} is not a picture; give (height, width, 3)")
    _check_size(array.shape[1], array.shape[0], "the picture")
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return np.rint(array / 257.0).astype(np.uint8)
    if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise PictureError(f"an array of {array.dtype} is not a picture; give uint8")
    finite = np.nan_to_num(array.astype(np.float32), nan=0.0)
    whole = np.issubdtype(array.dtype, np.integer) or finite.max() > 1.5
    return np.rint(np.clip(finite if whole else finite * 255.0, 0.0, 255.0)).astype(np.uint8)


def _flatten(array: np.ndarray) -> np.ndarray:
    """uint8 of any number of channels to three, transparency over white."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    if array.shape[2] == 4:
        alpha = array[:, :, 3:].astype(np.float32) / 255.0
        return np.rint(array[:, :, :3] * alpha + 255.0 * (1.0 - alpha)).astype(np.uint8)
    return np.ascontiguousarray(array)


def _coverage(array: np.ndarray) -> np.ndarray:
    """uint8 of any number of channels to one: the opacity where it varies, else the brightness."""
    if array.ndim == 3 and array.shape[2] == 4 and array[:, :, 3].min() < 255:
        return np.ascontiguousarray(array[:, :, 3])
    return array if array.ndim == 2 else np.rint(array[:, :, :3].mean(2)).astype(np.uint8)

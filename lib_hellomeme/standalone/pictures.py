"""Pictures to files."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from lib_hellomeme.errors import PictureError


def save_picture(picture: np.ndarray, path: str | os.PathLike[str]) -> None:
    """RGB uint8 (H, W, 3) to a file whose suffix says the format; it appears whole or not at all.

    Raises PictureError where it cannot be written.
    """
    path = check_picture_path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(temporary, format=Image.registered_extensions()[path.suffix.lower()])
        os.replace(temporary, path)
    except OSError as error:
        raise PictureError(f"{path} cannot be written ({error.strerror}); choose another place") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def check_picture_path(path: str | os.PathLike[str]) -> Path:
    """Raises PictureError for a suffix that no picture can be written with."""
    path = Path(path)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise PictureError(f"{path.name}: pictures are written as .png, .jpg or .webp; choose such a name")
    return path

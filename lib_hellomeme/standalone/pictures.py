"""Pictures to files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from lib_hellomeme.errors import PictureError


def save_picture(picture: np.ndarray, path: str | os.PathLike[str], parameters: str = "") -> None:
    """RGB uint8 (H, W, 3) to a file whose suffix says the format; it appears whole or not at all.

    `parameters` go where the webuis look for them, in PNG files. Raises PictureError where it cannot be written.
    """
    from PIL.PngImagePlugin import PngInfo

    path = check_picture_path(path)
    format = Image.registered_extensions()[path.suffix.lower()]
    options = {}
    if parameters and format == "PNG":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_text("parameters", parameters)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(temporary, format=format, **options)
        os.replace(temporary, path)
    except OSError as error:
        raise PictureError(f"{path} cannot be written ({error.strerror}); choose another place") from error
    finally:
        temporary.unlink(missing_ok=True)


def check_picture_path(path: str | os.PathLike[str]) -> Path:
    """Raises PictureError for a suffix that no picture can be written with."""
    path = Path(path)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise PictureError(f"{path.name}: pictures are written as .png, .jpg or .webp; choose such a name")
    return path

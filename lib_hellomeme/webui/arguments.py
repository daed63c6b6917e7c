"""What a webui hands to the script, from the panel or the API, as settings and pictures.

The panel and the API's positional list share one order: the switch, the two pictures, then the other options in the
order of `Settings`. It only grows at its end. The API may instead send one object of names.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib_hellomeme.errors import PictureError
from lib_hellomeme.face.pictures import PictureSource, read_picture
from lib_hellomeme.settings import OPTION_FIELDS, Settings

PICTURES = {"reference": "Reference", "driving": "Driving picture"}
NAMES = ("enabled", *PICTURES, *(name for name in OPTION_FIELDS if name != "enabled"))


@dataclass(frozen=True)
class Request:
    """What a user asks for; the pictures as they came."""

    settings: Settings
    pictures: Mapping[str, Any]  # by the keys of PICTURES

    def picture(self, name: str) -> np.ndarray:
        """RGB uint8 (H, W, 3). Raises PictureError where it is missing or cannot be read."""
        label, given = PICTURES[name], self.pictures.get(name)
        if given is None or (isinstance(given, (str, bytes)) and not given):
            raise PictureError(f"{label}: there is no picture, or an empty one; choose one.")
        try:
            return read_picture(from_base64(given) if isinstance(given, str) else given)
        except PictureError as error:
            raise PictureError(f"{label}: {error}.") from error


def read_request(arguments: Sequence[Any], replaced: Mapping[str, Any] | None = None) -> Request:
    """The request in a script's arguments: a list in the order of NAMES, which may be short and hold None for what is
    not said, or one mapping, which switches on unless it says otherwise.

    `replaced` are options that something else decides, by name and perhaps as text, as X/Y/Z axes do. Raises
    SettingsError.
    """
    if arguments and isinstance(arguments[0], Mapping):
        given = {"enabled": True, **arguments[0]}
    else:
        given = dict(zip(NAMES, arguments, strict=False))
    given = {name: value for name, value in given.items() if value is not None}
    pictures = {name: given.pop(name) for name in PICTURES if name in given}
    return Request(Settings.from_mapping(given | Settings.parsed(replaced or {})), pictures)


def from_base64(text: str) -> PictureSource:
    """A base64 text, with or without the head of a data URL. No path and no address: the API's callers may be far."""
    try:
        encoded = text.split(",", 1)[-1] if text.startswith("data:") else text
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise PictureError("it is no base64 text; send the picture's bytes in base64") from None

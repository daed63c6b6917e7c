"""The options and pictures of reference units, from the panel or the API.

The panel and the API's positional list hold, unit after unit, the values of NAMES; the list only grows at its end. The
API may instead send one object of names for each unit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, fields
from typing import Any, get_args

import numpy as np
from torch import Tensor

from lib_hellomeme.errors import PictureError, SettingsError
from lib_hellomeme.face.pictures import read_mask, read_picture
from lib_hellomeme.recipes.reference import Kind, Mode
from lib_hellomeme.sampling.banks import Writing
from lib_hellomeme.settings import Options, choice, number, option, switch
from lib_hellomeme.webui.arguments import from_base64

PICTURES = {"picture": "Reference", "look": "Where to look", "apply": "Where to apply"}


@dataclass(frozen=True)
class ReferenceSettings(Options):
    """What a user can choose for one unit."""

    enabled: bool = switch("Enable", "Make the picture go by this reference.")
    kind: Kind = choice(
        get_args(Kind),
        "Kind",
        "reference_only looks at the reference while drawing; reference_adain takes its tones and contrasts layer by "
        "layer; reference_adain+attn does both.",
    )
    weight: float = number(
        1.0, "Weight", "How many layers take part, the coarsest first: 1 is all that look, 2 all tones.", maximum=2.0
    )
    fidelity: float = number(
        0.5, "Style fidelity", "1 sets the reference against the negative prompt, so it is followed most; 0 least."
    )
    mode: Mode = choice(
        get_args(Mode),
        "Control mode",
        "Balanced goes by the style fidelity; the prompt's importance means fidelity 0, ControlNet's means 1.",
    )
    start: float = number(0.0, "Start", "The part of the steps after which the unit sets in.")
    end: float = number(1.0, "End", "The part of the steps after which the unit lets go.")
    writing: str = choice(
        ("compatible", "one row", "once"),
        "Writing",
        "compatible: a noised copy of the reference for every row at each step, as ControlNet; up to twice the time. "
        "one row: all rows share one copy, written without a prompt, so no words bend what is seen; up to 1.7 times. "
        "once: the reference is seen sharp, once before the first step; nearly no time, and it is followed more "
        "literally.",
    )
    every: str = choice(
        ("1", "2", "3", "4", "6", "8"),
        "Write at every n-th step",
        "Between, the last copy is read again: quicker, with features of a slightly noisier picture.",
        group="Advanced",
    )
    strength: float = number(
        1.0, "Strength", "Moves everything that the unit does towards nothing, by degrees.", group="Advanced"
    )
    fit: str = choice(
        ("crop", "pad", "stretch"),
        "Fit",
        "How the reference is brought to the picture's shape: cropped at the centre, padded, or stretched.",
        group="Advanced",
    )

    def how_written(self, empty_prompt: Callable[[], Tensor]) -> Writing:
        """`empty_prompt` gives the context (1, tokens, width) of a row that all share."""
        if self.writing == "once":
            return Writing("once", context=empty_prompt())
        return Writing(every=int(self.every), context=empty_prompt() if self.writing == "one row" else None)


OPTION_FIELDS: dict[str, Field] = {entry.name: entry for entry in fields(ReferenceSettings)}
NAMES = ("enabled", *PICTURES, *(name for name in OPTION_FIELDS if name != "enabled"))


def infotext_prefix(number: int | str) -> str:
    """What the options of unit 1, 2, ... begin with in a picture's parameters."""
    return f"Reference unit {number}"


def is_unit_key(key: str) -> bool:
    """Whether an entry of a picture's parameters is an option of a unit."""
    labels = "|".join(option(entry).label.lower() for entry in OPTION_FIELDS.values())
    return re.fullmatch(rf"{infotext_prefix('[0-9]+')} ({labels})", key) is not None


@dataclass(frozen=True)
class Request:
    """One unit that is switched on: its options, its picture RGB uint8 (H, W, 3), and its masks uint8 (h, w)."""

    number: int  # from 1
    settings: ReferenceSettings
    picture: np.ndarray
    look: np.ndarray | None
    apply: np.ndarray | None


def read_requests(arguments: Sequence[Any], replaced: Mapping[str, Any] | None = None) -> list[Request]:
    """The units that are switched on in a script's arguments. Raises SettingsError and PictureError; they say which.

    `replaced` are options that something else decides for every unit with a picture, as X/Y/Z axes do.
    """
    decided = ReferenceSettings.parsed(replaced or {})
    if arguments and isinstance(arguments[0], Mapping):
        given = [{"enabled": True, **unit} for unit in arguments if isinstance(unit, Mapping)]
    else:
        starts = range(0, len(arguments), len(NAMES))
        given = [dict(zip(NAMES, arguments[start : start + len(NAMES)], strict=False)) for start in starts]
    requests = [_read_request(number, unit, decided) for number, unit in enumerate(given, 1)]
    return [request for request in requests if request is not None]


def _read_request(number: int, given: Mapping[str, Any], decided: Mapping[str, Any]) -> Request | None:
    given = {name: value for name, value in given.items() if value is not None}
    pictures = {name: given.pop(name) for name in PICTURES if name in given}
    if "picture" in pictures:
        given |= decided
    if not given.get("enabled"):
        return None
    if isinstance(pictures.get("picture"), Mapping):  # gradio 3's picture to draw on
        drawn = pictures["picture"]
        pictures = {**pictures, "picture": drawn.get("image"), "look": drawn.get("mask")}
    try:
        settings = ReferenceSettings.from_mapping(given)
        picture = _read(pictures, "picture", read_picture)
        if picture is None:
            raise PictureError("there is no picture; choose one, or switch the unit off.")
        look, apply = (_read(pictures, name, read_mask) for name in ("look", "apply"))
    except (PictureError, SettingsError) as error:
        raise type(error)(f"{infotext_prefix(number)}: {error}") from error
    if look is not None and look.max() < 128:  # nothing drawn
        look = None
    return Request(number, settings, picture, look, apply)


def _read(pictures: Mapping[str, Any], name: str, read: Callable[[Any], np.ndarray]) -> np.ndarray | None:
    given = pictures.get(name)
    if given is None or (isinstance(given, (str, bytes)) and not given):
        return None
    try:
        return read(from_base64(given) if isinstance(given, str) else given)
    except PictureError as error:
        raise PictureError(f"{PICTURES[name]}: {error}.") from error

"""The options of a run, once.

Panel, API names, infotext, X/Y/Z axes and the command line are all derived from the fields of `Settings`: a new option
is one field here, one widget where the kind is new, and one test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any, Literal

from lib_hellomeme.errors import SettingsError

Group = Literal["", "Head and expression", "Advanced"]


@dataclass(frozen=True)
class Option:
    """How a field of `Settings` is shown and checked: a number within `bounds`, or one of `choices` where there are
    some. A `group` with a name is shown folded, below the options without one."""

    label: str
    help: str
    bounds: tuple[float, float] = (0.0, 1.0)
    choices: tuple[str, ...] = ()
    group: Group = ""


def _number(default: float, label: str, help: str, maximum: float = 1.0, group: Group = "") -> Any:
    return field(default=default, metadata={"option": Option(label, help, bounds=(0.0, maximum), group=group)})


def _choice(choices: tuple[str, ...], label: str, help: str, group: Group = "") -> Any:
    return field(default=choices[0], metadata={"option": Option(label, help, choices=choices, group=group)})


def _text(label: str, help: str, group: Group = "") -> Any:
    return field(default="", metadata={"option": Option(label, help, group=group)})


def _switch(label: str, help: str, group: Group = "") -> Any:
    return field(default=False, metadata={"option": Option(label, help, group=group)})


@dataclass(frozen=True)
class Settings:
    """What a user can choose. `Settings(**wishes)` raises SettingsError for a value out of its range."""

    enabled: bool = _switch("Enable", "Make the picture follow the reference portrait and the driving face.")
    generation: str = _choice(
        ("v5c", "v5b", "v5", "v4", "v3", "v2", "v1"), "Networks", "Which generation of the HelloMeme networks to use."
    )
    reference_weight: float = _number(
        1.0, "Reference weight", "How strongly the picture takes the reference's looks; 0 switches it off.", maximum=2.0
    )
    pose_weight: float = _number(
        1.0,
        "Pose weight",
        "0 keeps the reference's head pose, 1 takes the driving one, above 1 exaggerates.",
        maximum=2.0,
    )
    expression_weight: float = _number(
        1.0,
        "Expression weight",
        "0 keeps the reference's expression, 1 takes the driving one, above 1 exaggerates.",
        maximum=2.0,
    )
    start: float = _number(0.0, "Start", "The part of the steps after which the networks set in.")
    end: float = _number(1.0, "End", "The part of the steps after which the networks let go.")
    fit: str = _choice(
        ("face", "crop", "pad", "stretch"),
        "Fit",
        "How the reference is brought to the picture's shape: cropped around the face, cropped at the centre, "
        "padded, or stretched.",
    )
    face_box: str = _text(
        "Face box",
        "Where the reference's face is when it is not found, as in a drawing: left, top, right, bottom as fractions "
        "of the picture, like 0.3, 0.2, 0.7, 0.6. Empty: search.",
    )
    expression: Literal["arkit", "pdfgc"] = _choice(
        ("arkit", "pdfgc"),
        "Expression from",
        "How the networks are told the expression: by ARKit coefficients measured on the landmarks, or by the PD-FGC "
        "encoder, the published default, which needs a file of its own.",
    )

    def __post_init__(self) -> None:
        for entry in fields(self):
            object.__setattr__(self, entry.name, _checked(entry, getattr(self, entry.name)))
        if self.enabled and self.start >= self.end:
            raise SettingsError(f"Start ({self.start:g}) must be below End ({self.end:g}).")
        self.box()

    def box(self) -> tuple[float, float, float, float] | None:
        """`face_box` as (left, top, right, bottom) in fractions of the picture, None when it is empty."""
        if not self.face_box:
            return None
        try:
            left, top, right, bottom = (float(part) for part in self.face_box.replace(";", ",").split(","))
        except ValueError:
            raise SettingsError(f"Face box {self.face_box!r}: give four numbers, like 0.3, 0.2, 0.7, 0.6.") from None
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise SettingsError(
                f"Face box {self.face_box!r}: left, top, right, bottom are fractions of the picture from 0 to 1, "
                "left before right and top before bottom."
            )
        return left, top, right, bottom

    @classmethod
    def from_mapping(cls, wishes: Mapping[str, Any]) -> Settings:
        """Settings from names and values, as the API and infotext give them. Raises SettingsError for unknown names."""
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(wishes) - known)
        if unknown:
            raise SettingsError(f"Unknown option {unknown[0]!r}; there are: {', '.join(sorted(known))}.")
        return cls(**wishes)

    def changed(self, **wishes: Any) -> Settings:
        """These settings with some options replaced."""
        return replace(self, **wishes)

    def to_infotext(self) -> dict[str, Any]:
        """What a picture's parameters say of this run: the switch, and every option that differs from its default.

        Empty when nothing ran.
        """
        if not self.enabled:
            return {}
        changed = (entry for entry in fields(self) if getattr(self, entry.name) != entry.default)
        return {infotext_key(entry.name): getattr(self, entry.name) for entry in changed}

    @classmethod
    def from_infotext(cls, parameters: Mapping[str, Any]) -> Settings:
        """The settings that `to_infotext` wrote, found among a picture's parameters, whose values may be text."""
        found = {
            entry.name: parameters[infotext_key(entry.name)]
            for entry in fields(cls)
            if infotext_key(entry.name) in parameters
        }
        return cls(**{name: _parsed(name, value) for name, value in found.items()})


def infotext_key(name: str) -> str:
    """What the option `name` is called in a picture's parameters."""
    return f"HelloMeme {option(OPTION_FIELDS[name]).label.lower()}"


def option(entry: Field) -> Option:
    """How this field of `Settings` is shown and checked."""
    return entry.metadata["option"]


OPTION_FIELDS: dict[str, Field] = {entry.name: entry for entry in fields(Settings)}  # in the order of the API's list


def grouped_options() -> dict[Group, list[str]]:
    """The names of OPTION_FIELDS by their group, in the order of the panel."""
    groups: dict[Group, list[str]] = {}
    for name, entry in OPTION_FIELDS.items():
        groups.setdefault(option(entry).group, []).append(name)
    return groups


def _parsed(name: str, value: Any) -> Any:
    """A value of infotext or the command line, where numbers and switches may come as text."""
    default = OPTION_FIELDS[name].default
    if not isinstance(value, str) or isinstance(default, str):
        return value
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(value.lower(), value)
    try:
        return float(value)
    except ValueError:
        return value


def _checked(entry: Field, value: Any) -> Any:
    """`value` as the field's type, or SettingsError."""
    shown = option(entry)
    if isinstance(entry.default, bool):
        if isinstance(value, bool):
            return value
        raise SettingsError(f"{shown.label}: {value!r} is neither true nor false.")
    if isinstance(entry.default, str):
        if not isinstance(value, str):
            raise SettingsError(f"{shown.label}: {value!r} is not text.")
        if shown.choices and value not in shown.choices:
            raise SettingsError(f"{shown.label}: {value!r} is not one of {', '.join(shown.choices)}.")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SettingsError(f"{shown.label}: {value!r} is not a number.")
    minimum, maximum = shown.bounds
    if not minimum <= value <= maximum:
        raise SettingsError(f"{shown.label}: {value:g} is outside {minimum:g} to {maximum:g}.")
    return float(value)

"""The options of a run, once.

Panel, API names, infotext, X/Y/Z axes and the command line are all derived from the fields of `Settings`: a new option
is one field here, one widget where the kind is new, and one test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from lib_hellomeme.errors import SettingsError

if TYPE_CHECKING:
    from typing_extensions import Self

PREFIX = "HelloMeme"  # of our entries in a picture's parameters

Group = Literal["", "Head and expression", "Advanced"]


@dataclass(frozen=True)
class Option:
    """How an option is shown and checked: a number within `bounds`, or one of `choices` where there are some. A `group`
    with a name is shown folded, below the options without one."""

    label: str
    help: str
    bounds: tuple[float, float] = (0.0, 1.0)
    choices: tuple[str, ...] = ()
    group: Group = ""


def number(default: float, label: str, help: str, maximum: float = 1.0, group: Group = "") -> Any:
    return field(default=default, metadata={"option": Option(label, help, bounds=(0.0, maximum), group=group)})


def choice(choices: tuple[str, ...], label: str, help: str, group: Group = "") -> Any:
    return field(default=choices[0], metadata={"option": Option(label, help, choices=choices, group=group)})


def text(label: str, help: str, group: Group = "") -> Any:
    return field(default="", metadata={"option": Option(label, help, group=group)})


def switch(label: str, help: str, group: Group = "") -> Any:
    return field(default=False, metadata={"option": Option(label, help, group=group)})


@dataclass(frozen=True)
class Options:
    """What `Settings` and the settings of reference units share. A subclass's fields are options, the first of them the
    switch `enabled`; a value out of its range raises SettingsError, and so does a `start` that is not before `end`."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            object.__setattr__(self, entry.name, _checked(entry, getattr(self, entry.name)))
        start, end = getattr(self, "start", 0.0), getattr(self, "end", 1.0)
        if self.enabled and start >= end:  # type: ignore[attr-defined]
            raise SettingsError(f"Start ({start:g}) must be below End ({end:g}).")

    @classmethod
    def from_mapping(cls, wishes: Mapping[str, Any]) -> Self:
        """Options from names and values, as the API and infotext give them. Raises SettingsError for unknown names."""
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(wishes) - known)
        if unknown:
            raise SettingsError(f"Unknown option {unknown[0]!r}; there are: {', '.join(sorted(known))}.")
        return cls(**wishes)

    def changed(self, **wishes: Any) -> Self:
        """These options with some replaced."""
        return replace(self, **wishes)

    def to_infotext(self, prefix: str = PREFIX) -> dict[str, Any]:
        """What a picture's parameters say of this run: the switch, and every option that differs from its default.

        Empty when nothing ran.
        """
        if not self.enabled:  # type: ignore[attr-defined]
            return {}
        changed = (entry for entry in fields(self) if getattr(self, entry.name) != entry.default)
        return {key_of(entry, prefix): getattr(self, entry.name) for entry in changed}

    @classmethod
    def from_infotext(cls, parameters: Mapping[str, Any], prefix: str = PREFIX) -> Self:
        """The options that `to_infotext` wrote, found among a picture's parameters, whose values may be text."""
        keys = {entry.name: key_of(entry, prefix) for entry in fields(cls)}
        return cls(**cls.parsed({name: parameters[key] for name, key in keys.items() if key in parameters}))

    @classmethod
    def parsed(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Some options by name, whose values may be text, with the values of their fields' types."""
        return {entry.name: _parsed(entry, options[entry.name]) for entry in fields(cls) if entry.name in options}


def _gain(label: str, help: str, default: float = 1.0) -> Any:
    return number(default, label, help, maximum=2.0, group="Head and expression")


@dataclass(frozen=True)
class Settings(Options):
    """What a user can choose. `Settings(**wishes)` raises SettingsError for a value out of its range."""

    enabled: bool = switch("Enable", "Make the picture follow the reference portrait and the driving face.")
    generation: str = choice(
        ("v5c", "v5b", "v5", "v4", "v3", "v2", "v1"), "Networks", "Which generation of the HelloMeme networks to use."
    )
    reference_weight: float = number(
        1.0, "Reference weight", "How strongly the picture takes the reference's looks; 0 switches it off.", maximum=2.0
    )
    pose_weight: float = number(
        1.0,
        "Pose weight",
        "0 keeps the reference's head pose, 1 takes the driving one, above 1 exaggerates.",
        maximum=2.0,
    )
    expression_weight: float = number(
        1.0,
        "Expression weight",
        "0 keeps the reference's expression, 1 takes the driving one, above 1 exaggerates.",
        maximum=2.0,
    )
    start: float = number(0.0, "Start", "The part of the steps after which the networks set in.")
    end: float = number(1.0, "End", "The part of the steps after which the networks let go.")
    fit: str = choice(
        ("face", "crop", "pad", "stretch"),
        "Fit",
        "How the reference is brought to the picture's shape: cropped around the face, cropped at the centre, "
        "padded, or stretched.",
    )
    face_box: str = text(
        "Face box",
        "Where the reference's face is when it is not found, as in a drawing: left, top, right, bottom as fractions "
        "of the picture, like 0.3, 0.2, 0.7, 0.6. Empty: search.",
    )
    expression: Literal["arkit", "pdfgc"] = choice(
        ("arkit", "pdfgc"),
        "Expression from",
        "How the networks are told the expression: by ARKit coefficients measured on the landmarks, or by the PD-FGC "
        "encoder, the published default, which needs a file of its own.",
    )
    reference_pass: Literal["checkpoint", "x1", "x2"] = choice(
        ("checkpoint", "x1", "x2"),
        "Reference pass",
        "Which model looks at the reference. checkpoint: the loaded one. x1, the published app's default: the UNet, "
        "the VAE encoder and the text encoder of another SD1.5 file, its text encoder for the drawing too. x2: the "
        "checkpoint's UNet with that file's text encoder.",
        group="Advanced",
    )
    original: str = text(
        "Original SD1.5",
        "The SD1.5 file for x1 and x2, like v1-5-pruned-emaonly.safetensors: on the command line a path, in a webui "
        "the name of a file among its checkpoints or in models/hellomeme.",
        group="Advanced",
    )
    pitch_gain: float = _gain(
        "Pitch gain",
        "Of nodding, times the pose weight: 0 keeps the reference's angle, 1 takes the driving one, above 1 "
        "exaggerates.",
    )
    yaw_gain: float = _gain("Yaw gain", "Of turning left and right, likewise.")
    roll_gain: float = _gain("Roll gain", "Of tilting to a shoulder, likewise.")
    shift_gain: float = _gain(
        "Shift gain",
        "Of the head's place and size, times the pose weight: 0 keeps the reference's, as published; 1 puts the head "
        "where the driving picture has it, or moves it as far as the driving track does.",
        default=0.0,
    )
    brows_gain: float = _gain(
        "Brows gain",
        "Of the brows' coefficients, times the expression weight: 0 keeps the reference's, 1 takes the driving ones. "
        "Not for PD-FGC, which knows no parts.",
    )
    eyes_gain: float = _gain("Eyes gain", "Of blinking, squinting and wide eyes, likewise.")
    gaze_gain: float = _gain("Gaze gain", "Of where the eyes look, likewise.")
    jaw_gain: float = _gain("Jaw gain", "Of the jaw, likewise.")
    mouth_gain: float = _gain("Mouth gain", "Of lips and smiles, likewise.")
    extractor: str = choice(
        ("auto", "onnx", "tasks", "solutions", "insightface"),
        "Face finder",
        "What finds faces: auto takes the first that is installed and downloaded of HelloMeme's own ONNX models, "
        "MediaPipe Tasks (face_landmarker.task), MediaPipe solutions and insightface.",
        group="Advanced",
    )
    which_face: Literal["largest", "smallest", "leftmost", "rightmost", "alike"] = choice(
        ("largest", "smallest", "leftmost", "rightmost", "alike"),
        "Driving face",
        "Which of several driving faces is followed; alike: the one most like the reference, which needs insightface.",
        group="Advanced",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
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


def infotext_key(name: str) -> str:
    """What the option `name` is called in a picture's parameters."""
    return key_of(OPTION_FIELDS[name], PREFIX)


def key_of(entry: Field, prefix: str) -> str:
    """What an option is called in a picture's parameters, among those that begin with `prefix`."""
    return f"{prefix} {option(entry).label.lower()}"


def option(entry: Field) -> Option:
    """How this field of a class of options is shown and checked."""
    return entry.metadata["option"]


OPTION_FIELDS: dict[str, Field] = {entry.name: entry for entry in fields(Settings)}  # in the order of the API's list


def grouped_options() -> dict[Group, list[str]]:
    """The names of OPTION_FIELDS by their group, in the order of the panel."""
    groups: dict[Group, list[str]] = {}
    for name, entry in OPTION_FIELDS.items():
        groups.setdefault(option(entry).group, []).append(name)
    return groups


def _parsed(entry: Field, value: Any) -> Any:
    """A value of infotext or the command line, where numbers and switches may come as text."""
    default = entry.default
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

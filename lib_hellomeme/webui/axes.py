"""An axis of the X/Y/Z plot for every option."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field
from typing import Any

from lib_hellomeme.settings import OPTION_FIELDS, option
from lib_hellomeme.webui import reference_settings, references, run

AXES = {run.WHO: (OPTION_FIELDS, run.AXES), references.WHO: (reference_settings.OPTION_FIELDS, references.AXES)}


def register_axes() -> None:
    """Add our axes to the X/Y/Z script, once. Call it when all scripts are loaded."""
    from modules import scripts

    for plot in (data.module for data in scripts.scripts_data if hasattr(data.module, "axis_options")):
        known = {axis.label for axis in plot.axis_options}
        axes = [
            axis_of(plot.AxisOption, who, kept_in, name, entry)
            for who, (options, kept_in) in AXES.items()
            for name, entry in options.items()
        ]
        plot.axis_options += [axis for axis in axes if axis.label not in known]


def axis_of(AxisOption: Any, who: str, kept_in: str, name: str, entry: Field) -> Any:
    """The axis of an option of our script `who`, which a cell's p keeps in its attribute `kept_in`."""
    shown = option(entry)
    if isinstance(entry.default, bool):
        kind: dict[str, Any] = {"type": str, "choices": lambda: ["True", "False"]}
    elif isinstance(entry.default, str):
        kind = {"type": str} | ({"choices": lambda: list(shown.choices)} if shown.choices else {})
    else:
        kind = {"type": float}
    return AxisOption(label=f"[{who}] {shown.label}", apply=chooses(name, kept_in), **kind)


def chooses(name: str, kept_in: str) -> Callable[[Any, Any, Any], None]:
    """What an axis does to a cell: a new mapping, as cells are shallow copies of one p."""

    def apply(p: Any, value: Any, values: Any) -> None:
        setattr(p, kept_in, {**getattr(p, kept_in, {}), name: value})

    return apply

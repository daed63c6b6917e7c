"""An axis of the X/Y/Z plot for every option."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field
from typing import Any

from lib_hellomeme.settings import OPTION_FIELDS, option


def register_axes() -> None:
    """Add our axes to the X/Y/Z script, once. Call it when all scripts are loaded."""
    from modules import scripts

    for plot in (data.module for data in scripts.scripts_data if hasattr(data.module, "axis_options")):
        known = {axis.label for axis in plot.axis_options}
        axes = [axis_of(plot.AxisOption, name, entry) for name, entry in OPTION_FIELDS.items()]
        plot.axis_options += [axis for axis in axes if axis.label not in known]


def axis_of(AxisOption: Any, name: str, entry: Field) -> Any:
    shown = option(entry)
    if isinstance(entry.default, bool):
        kind: dict[str, Any] = {"type": str, "choices": lambda: ["True", "False"]}
    elif isinstance(entry.default, str):
        kind = {"type": str} | ({"choices": lambda: list(shown.choices)} if shown.choices else {})
    else:
        kind = {"type": float}
    return AxisOption(label=f"[HelloMeme] {shown.label}", apply=chooses(name), **kind)


def chooses(name: str) -> Callable[[Any, Any, Any], None]:
    """What an axis does to a cell: a new mapping, as cells are shallow copies of one p."""

    def apply(p: Any, value: Any, values: Any) -> None:
        p.hellomeme_axes = {**getattr(p, "hellomeme_axes", {}), name: value}

    return apply

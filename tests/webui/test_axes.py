from __future__ import annotations

import sys
from copy import copy
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lib_hellomeme.settings import OPTION_FIELDS, Settings, option
from lib_hellomeme.webui.arguments import read_request
from lib_hellomeme.webui.axes import axis_of, register_axes


@dataclass
class AxisOption:
    """The plot's class, as far as we give it anything."""

    label: str
    type: Any
    apply: Any
    choices: Any = None


def example_of(name: str) -> Any:
    """A value that is not the default, as an axis gives it."""
    default, shown = OPTION_FIELDS[name].default, option(OPTION_FIELDS[name])
    if isinstance(default, bool):
        return str(not default)
    if shown.choices:
        return shown.choices[-1]
    return "0.1, 0.1, 0.5, 0.5" if isinstance(default, str) else 0.25


@pytest.mark.parametrize("name", OPTION_FIELDS)
def test_every_option_has_an_axis_that_sets_it_in_one_cell_only(name: str) -> None:
    axis = axis_of(AxisOption, name, OPTION_FIELDS[name])
    p = SimpleNamespace()
    cell = copy(p)
    axis.apply(cell, axis.type(example_of(name)), [])
    assert not hasattr(p, "hellomeme_axes")
    settings = read_request([], cell.hellomeme_axes).settings
    assert str(getattr(settings, name)) == str(example_of(name))
    assert settings == Settings(**{name: getattr(settings, name)})


def test_two_axes_meet_in_a_cell() -> None:
    p: Any = SimpleNamespace()
    for name in ("pose_weight", "end"):
        axis_of(AxisOption, name, OPTION_FIELDS[name]).apply(p, 0.5, [])
    other = copy(p)
    axis_of(AxisOption, "end", OPTION_FIELDS["end"]).apply(other, 0.75, [])
    assert p.hellomeme_axes == {"pose_weight": 0.5, "end": 0.5}
    assert other.hellomeme_axes == {"pose_weight": 0.5, "end": 0.75}


def test_axes_are_added_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plot: Any = ModuleType("xyz_grid")
    plot.AxisOption, plot.axis_options = AxisOption, [AxisOption("Seed", int, None)]
    scripts: Any = ModuleType("modules.scripts")
    scripts.scripts_data = [SimpleNamespace(module=plot), SimpleNamespace(module=ModuleType("outpainting"))]
    modules: Any = ModuleType("modules")
    modules.scripts = scripts
    monkeypatch.setitem(sys.modules, "modules", modules)
    register_axes()
    register_axes()
    assert [axis.label for axis in plot.axis_options] == [
        "Seed",
        *(f"[HelloMeme] {option(entry).label}" for entry in OPTION_FIELDS.values()),
    ]

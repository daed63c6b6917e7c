from __future__ import annotations

import sys
from copy import copy
from dataclasses import Field, dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lib_hellomeme.settings import OPTION_FIELDS, Settings, option
from lib_hellomeme.webui import reference_settings, references, run
from lib_hellomeme.webui.arguments import read_request
from lib_hellomeme.webui.axes import AXES, axis_of, register_axes

PICTURE = np.full((24, 16, 3), 90, np.uint8)


@dataclass
class AxisOption:
    """The plot's class, as far as we give it anything."""

    label: str
    type: Any
    apply: Any
    choices: Any = None


def example_of(entry: Field) -> Any:
    """A value that is not the default, as an axis gives it."""
    default, shown = entry.default, option(entry)
    if isinstance(default, bool):
        return str(not default)
    if shown.choices:
        return shown.choices[-1]
    return "0.1, 0.1, 0.5, 0.5" if isinstance(default, str) else 0.25


def axis(who: str, name: str) -> Any:
    options, kept_in = AXES[who]
    return axis_of(AxisOption, who, kept_in, name, options[name])


@pytest.mark.parametrize("name", OPTION_FIELDS)
def test_every_option_has_an_axis_that_sets_it_in_one_cell_only(name: str) -> None:
    own, wanted = axis(run.WHO, name), example_of(OPTION_FIELDS[name])
    p = SimpleNamespace()
    cell = copy(p)
    own.apply(cell, own.type(wanted), [])
    assert not hasattr(p, run.AXES)
    settings = read_request([], getattr(cell, run.AXES)).settings
    assert str(getattr(settings, name)) == str(wanted)
    assert settings == Settings(**{name: getattr(settings, name)})


@pytest.mark.parametrize("name", reference_settings.OPTION_FIELDS)
def test_axes_of_references_set_every_unit_that_has_a_picture(name: str) -> None:
    entry = reference_settings.OPTION_FIELDS[name]
    own, wanted, cell = axis(references.WHO, name), example_of(entry), SimpleNamespace()
    own.apply(cell, own.type(wanted), [])
    own_values = getattr(cell, references.AXES)
    switched = name != "enabled"  # the axis itself switches on, in that case
    units = [{"enabled": switched, "picture": PICTURE}, {"enabled": False}, {"enabled": switched, "picture": PICTURE}]
    found = reference_settings.read_requests(units, own_values)
    assert [request.number for request in found] == [1, 3]
    assert all(str(getattr(request.settings, name)) == str(wanted) for request in found)


def test_two_axes_meet_in_a_cell() -> None:
    p: Any = SimpleNamespace()
    for name in ("pose_weight", "end"):
        axis(run.WHO, name).apply(p, 0.5, [])
    axis(references.WHO, "end").apply(p, 0.25, [])
    other = copy(p)
    axis(run.WHO, "end").apply(other, 0.75, [])
    assert p.hellomeme_axes == {"pose_weight": 0.5, "end": 0.5}
    assert other.hellomeme_axes == {"pose_weight": 0.5, "end": 0.75}
    assert other.hellomeme_reference_axes == {"end": 0.25}


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
        *(f"[HelloMeme references] {option(entry).label}" for entry in reference_settings.OPTION_FIELDS.values()),
    ]

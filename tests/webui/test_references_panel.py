"""The accordion of reference units against a recorder in the place of gradio."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given

from lib_hellomeme.settings import option
from lib_hellomeme.webui.reference_settings import NAMES, OPTION_FIELDS, ReferenceSettings, infotext_prefix
from tests.webui.test_panel import Gradio
from tests.webui.test_reference_settings import wishes

OURS = ("lib_hellomeme.webui.panel", "lib_hellomeme.webui.references_panel")


@pytest.fixture(scope="module")
def panel() -> Iterator[Any]:
    shared: Any = ModuleType("modules.shared")
    shared.opts = SimpleNamespace(data={})
    modules: Any = ModuleType("modules")
    modules.shared = shared
    fakes = {"gradio": Gradio("gradio"), "modules": modules, "modules.shared": shared}
    with pytest.MonkeyPatch.context() as patch:
        for name, module in fakes.items():
            patch.setitem(sys.modules, name, module)
        for name in OURS:
            patch.delitem(sys.modules, name, raising=False)
        yield import_module(OURS[1])
        for name in OURS:
            sys.modules.pop(name, None)


def test_every_unit_has_every_widget_in_its_place(panel: Any) -> None:
    units = panel.build_panel("txt2img")
    assert len(units) == panel.COUNT
    for unit in units:
        assert tuple(unit) == NAMES
        for name, entry in OPTION_FIELDS.items():
            assert unit[name].value == entry.default
            assert unit[name].options["label"] == option(entry).label
    ids = [
        widget.options["elem_id"]
        for tab in ("txt2img", "img2img")
        for u in panel.build_panel(tab)
        for widget in u.values()
    ]
    assert len(set(ids)) == len(ids)


def test_the_settings_page_decides_how_many(panel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from modules import shared

    monkeypatch.setitem(shared.opts.data, panel.COUNT_OPTION, 5)
    assert len(panel.build_panel("img2img")) == 5


@given(wish=wishes)
def test_pasting_restores_the_unit_and_switches_the_others_off(panel: Any, wish: dict[str, Any]) -> None:
    settings = ReferenceSettings(**wish).changed(enabled=True)
    parameters = {key: str(value) for key, value in settings.to_infotext(infotext_prefix(2)).items()}
    units = [{name: (number, name) for name in NAMES} for number in (1, 2)]
    pasted = {place: value(parameters) for place, value in panel.paste_fields(units)}
    for name in OPTION_FIELDS:
        assert pasted[2, name] == getattr(settings, name)
        assert pasted[1, name] == (False if name == "enabled" else None)


def test_the_browser_s_texts_are_handed_on(panel: Any) -> None:
    sketch = {"image": "data:image/png;base64,AAAA", "mask": "data:image/png;base64,BBBB"}
    assert panel.build_panel("txt2img")[0]["picture"].preprocess(sketch) == sketch

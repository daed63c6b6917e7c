"""The button of the published defaults, whatever order a webui builds its fields in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

from lib_hellomeme.recipes.published import CFG, OPTIONS, SIDE, STEPS, words_of
from lib_hellomeme.settings import OPTION_FIELDS
from tests.webui.test_panel import Gradio

NETWORKS = "v5c"


class Button:
    def __init__(self) -> None:
        self.listeners: list[tuple[Any, list[Any], list[Any]]] = []

    def click(self, function: Any, inputs: list[Any], outputs: list[Any], **_: Any) -> None:
        self.listeners.append((function, inputs, outputs))

    def press(self) -> None:
        """As gradio does it: every listener is given the values, and sets those of its outputs."""
        for function, inputs, outputs in self.listeners:
            values = function(*(component.value for component in inputs))
            for component, value in zip(outputs, values if len(outputs) > 1 else [values], strict=True):
                component.value = value


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    gradio = Gradio("gradio")
    gradio.buttons = []  # type: ignore[attr-defined]
    gradio.Button = lambda *_, **__: gradio.buttons.append(Button()) or gradio.buttons[-1]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    monkeypatch.delitem(sys.modules, "lib_hellomeme.webui.preset", raising=False)
    yield import_module("lib_hellomeme.webui.preset")
    sys.modules.pop("lib_hellomeme.webui.preset")


def field(elem_id: str | None, value: Any = None) -> Any:
    return SimpleNamespace(elem_id=elem_id, value=value)


@pytest.mark.parametrize("later", [0, 3, 99])
def test_all_fields_are_filled_in(module: Any, later: int) -> None:
    preset = module.Preset()
    fields = {name: field(f"txt2img_{name}", "a girl" if name == "prompt" else None) for name in module.FIELDS}
    others = [field(None), field("img2img_steps", 20), field("txt2img_seed", -1)]
    widgets = {name: field(f"txt2img_hellomeme_{name}", entry.default) for name, entry in OPTION_FIELDS.items()}
    components = [*others, *fields.values()]
    for component in components[:later]:
        preset.found(component)
    preset.build("txt2img", widgets)
    for component in [*components[later:], *components]:  # some are announced again
        preset.found(component)
    [button] = sys.modules["gradio"].buttons
    for _ in range(2):
        button.press()
        values = {name: component.value for name, component in fields.items()}
        assert values == {
            "prompt": f"a girl, {words_of(NETWORKS)}",
            "steps": STEPS,
            "cfg_scale": CFG,
            "sampling": "DPM++ 2M SDE",
            "scheduler": "SGM Uniform",
            "width": SIDE,
            "height": SIDE,
        }
    assert [component.value for component in others] == [None, 20, -1]
    changed = {name: one.value for name, one in widgets.items() if one.value != OPTION_FIELDS[name].default}
    assert changed == {name: value for name, value in OPTIONS.items() if value != OPTION_FIELDS[name].default}
    assert len(button.listeners) == 1 + len(fields)


def test_brackets_of_the_words_are_no_weights(module: Any) -> None:
    assert module.FIELDS["prompt"]("v1", "").startswith(r"\(best quality\), highly detailed")
    assert module.FIELDS["prompt"]("v1", "(a girl:1.2)").startswith(r"(a girl:1.2), \(best quality\)")
    assert module.FIELDS["sampling"]("v1", "LMS") == "Euler"

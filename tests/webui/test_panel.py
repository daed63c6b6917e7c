"""The accordion against a recorder in the place of gradio, which tests do without."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_hellomeme.face.track import FaceTrack
from lib_hellomeme.recipes.reenact import Portrait, Seen
from lib_hellomeme.settings import OPTION_FIELDS, Settings, grouped_options, option
from lib_hellomeme.webui.arguments import NAMES, PICTURES
from tests.face.samples import make_frame
from tests.test_settings import wishes


class Widget:
    """Remembers what it was made with, and in which other."""

    around: ClassVar[list[Widget]] = []

    def __init__(self, kind: str, *values: Any, **options: Any) -> None:
        self.kind, self.options = kind, options
        self.value = values[0] if values else options.get("value")
        self.parent = self.around[-1] if self.around else None

    def __enter__(self) -> Widget:
        self.around.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        self.around.pop()

    def click(self, function: Any, inputs: Any, outputs: Any, **options: Any) -> None:
        self.clicked = function, inputs, outputs


class Gradio(ModuleType):
    def __getattr__(self, kind: str) -> Any:
        if kind.startswith("_"):
            raise AttributeError(kind)
        return lambda *values, **options: Widget(kind, *values, **options)

    @staticmethod
    def update(**options: Any) -> dict[str, Any]:
        return options


@pytest.fixture(scope="module")
def panel() -> Iterator[Any]:
    components: Any = ModuleType("modules.ui_components")
    components.InputAccordion = lambda value, **options: Widget("InputAccordion", value, **options)
    fakes = {
        "gradio": Gradio("gradio"),
        "modules": ModuleType("modules"),
        "modules.ui_components": components,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, module in fakes.items():
            patch.setitem(sys.modules, name, module)
        for name in ("panel", "preset"):
            patch.delitem(sys.modules, f"lib_hellomeme.webui.{name}", raising=False)
        module = import_module("lib_hellomeme.webui.panel")
        patch.setattr(module, "complaints", lambda settings: [f"files of {settings.generation} are missing"])
        patch.setattr(module, "hints", lambda: ["a hint"])
        patch.setattr(module.downloads, "build", lambda tab, widgets: None)
        yield module
        for name in ("panel", "preset"):
            sys.modules.pop(f"lib_hellomeme.webui.{name}")


def test_every_option_has_a_widget_in_its_place(panel: Any) -> None:
    widgets = panel.build_panel("txt2img", panel.Preset())
    assert tuple(widgets) == NAMES
    for name, entry in OPTION_FIELDS.items():
        widget, shown = widgets[name], option(entry)
        assert widget.value == entry.default
        if name == "enabled":
            assert widget.kind == "InputAccordion"
            continue
        assert widget.options["label"] == shown.label
        assert widget.options["elem_id"] == f"txt2img_hellomeme_{name}"
        if isinstance(entry.default, float):
            assert (widget.options["minimum"], widget.options["maximum"]) == shown.bounds
        if shown.choices:
            assert widget.options["choices"] == list(shown.choices)


def test_groups_are_folded_and_below_the_main_options(panel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    main, *others = grouped_options().values()
    moved = [*others, main[5:]]
    groups = {"": main[:5]} | {f"group {index}": names for index, names in enumerate(moved)}
    monkeypatch.setattr(panel, "grouped_options", lambda: groups)
    widgets = panel.build_panel("txt2img", panel.Preset())
    assert tuple(widgets) == NAMES
    for group, names in groups.items():
        for name in names:
            parent = widgets[name].parent
            if not group:
                assert parent is (None if name == "enabled" else widgets["enabled"])
                continue
            assert parent.parent is widgets["enabled"]
            assert (parent.kind, parent.value, parent.options) == ("Accordion", group, {"open": False})
            assert parent is widgets[names[0]].parent


def test_the_two_tabs_share_no_id(panel: Any) -> None:
    ids = [
        widget.options["elem_id"]
        for tab in ("txt2img", "img2img")
        for widget in panel.build_panel(tab, panel.Preset()).values()
    ]
    assert len(set(ids)) == len(ids)


@given(wish=wishes)
def test_pasting_restores_every_option(panel: Any, wish: dict[str, Any]) -> None:
    settings = Settings(**wish).changed(enabled=True)
    parameters = {key: str(value) for key, value in settings.to_infotext().items()}
    widgets = {name: object() for name in NAMES}
    fields = panel.paste_fields(widgets)
    for name, (component, value) in zip(OPTION_FIELDS, fields, strict=True):
        assert component is widgets[name]
        assert value(parameters) == getattr(settings, name)


@pytest.mark.parametrize("parameters", [{}, {"Steps": "20"}, {"HelloMeme pose weight": "0.5"}])
def test_pasting_what_is_not_ours_only_switches_off(panel: Any, parameters: dict[str, str]) -> None:
    assert {name: panel.restored(name)(parameters) for name in OPTION_FIELDS} == {
        name: False if name == "enabled" else None for name in OPTION_FIELDS
    }


def test_pasting_what_a_later_version_wrote_leaves_the_panel_alone(panel: Any) -> None:
    parameters = {"HelloMeme enable": "True", "HelloMeme networks": "v99"}
    assert panel.restored("pose_weight")(parameters) is None


def test_a_look_without_pictures_says_what_is_missing(panel: Any) -> None:
    shown, lines = panel.show_seen(False, None, None)
    assert shown == {"visible": False}
    assert lines == "<p>Reference: there is no picture, or an empty one; choose one.</p>"


def test_a_look_shows_both_pictures_with_what_was_found(panel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    track = FaceTrack(make_frame().time, (make_frame(width=100, height=80),), frozenset(), "test", ("<2> faces",))
    seen = Seen(np.zeros((80, 100, 3), np.uint8), track)
    portrait = Portrait(seen, seen)
    monkeypatch.setattr(panel, "read_pictures", lambda request: portrait)
    shown, lines = panel.show_seen(False, seen.picture, seen.picture)
    assert shown["visible"]
    assert shown["value"].shape == (80, 200, 3)
    assert shown["value"].any()
    assert "&lt;2&gt; faces" in lines
    assert "files of v5c are missing" in lines


@given(sizes=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=3))
def test_pictures_side_by_side_are_as_high_as_the_lowest(panel: Any, sizes: list[tuple[int, int]]) -> None:
    joined = panel.side_by_side([np.zeros((height, width, 3), np.uint8) for width, height in sizes])
    assert joined.shape[0] == min(height for _, height in sizes)


def test_uploads_are_handed_on_as_they_are(panel: Any, tmp_path: Any) -> None:
    (tmp_path / "a.png").write_bytes(b"bytes")
    widgets = panel.build_panel("txt2img", panel.Preset())
    for name in PICTURES:
        assert widgets[name].preprocess(None) is None
        assert widgets[name].preprocess("data:image/png;base64,AAAA") == "data:image/png;base64,AAAA"
        assert widgets[name].preprocess(SimpleNamespace(path=str(tmp_path / "a.png"))) == b"bytes"

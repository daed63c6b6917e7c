"""The accordion of reference units: a tab for each, with the options of `ReferenceSettings` and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from lib_hellomeme.settings import option
from lib_hellomeme.webui.panel import restored, uploaded, widget
from lib_hellomeme.webui.reference_settings import NAMES, OPTION_FIELDS, PICTURES, ReferenceSettings, infotext_prefix

COUNT = 3  # of units, unless the settings page says otherwise
COUNT_OPTION = "hellomeme_reference_units"


def register_settings() -> None:
    """Add our entry to the settings page."""
    from modules import shared

    info = shared.OptionInfo(
        COUNT,
        "Number of reference units (restart the page)",
        gr.Slider,
        {"minimum": 1, "maximum": 10, "step": 1},
        section=("hellomeme", "HelloMeme"),
    )
    shared.opts.add_option(COUNT_OPTION, info)


def build_panel(tab: str) -> list[dict[str, Any]]:
    """The widgets of each unit by the names of NAMES. `tab` is txt2img or img2img."""
    from modules import shared

    units = []
    with gr.Accordion("HelloMeme references", open=False, elem_id=f"{tab}_hellomeme_references"), gr.Tabs():
        for number in range(1, int(shared.opts.data.get(COUNT_OPTION, COUNT)) + 1):
            with gr.Tab(f"Reference {number}"):
                units.append(_unit(f"{tab}_hellomeme_reference_{number}"))
    return units


def paste_fields(units: Sequence[Mapping[str, Any]]) -> list[tuple[Any, Callable]]:
    """What restores each option's widget from a picture's parameters."""
    return [
        (widgets[name], restored(name, ReferenceSettings, infotext_prefix(number)))
        for number, widgets in enumerate(units, 1)
        for name in OPTION_FIELDS
    ]


def _unit(elem_id: str) -> dict[str, Any]:
    shown = {name: entry for name, entry in OPTION_FIELDS.items() if not option(entry).group}
    folded = {name: entry for name, entry in OPTION_FIELDS.items() if option(entry).group}
    widgets: dict[str, Any] = {"enabled": widget(shown.pop("enabled"), f"{elem_id}_enabled")}
    widgets["picture"], widgets["look"] = drawn_on("Reference; draw where to look, or nothing", f"{elem_id}_picture")
    widgets |= {name: widget(entry, f"{elem_id}_{name}") for name, entry in shown.items()}
    with gr.Accordion("Advanced", open=False):
        widgets |= {name: widget(entry, f"{elem_id}_{name}") for name, entry in folded.items()}
        label = f"{PICTURES['apply']}: white in a mask of the drawn picture's shape; empty: everywhere"
        widgets["apply"] = uploaded(label, f"{elem_id}_apply")
    return {name: widgets[name] for name in NAMES}


def drawn_on(label: str, elem_id: str) -> tuple[Any, Any]:
    """A place for a picture to draw on, and what holds the drawing: in gradio 3 the picture holds both."""
    try:
        from modules_forge.forge_canvas.canvas import ForgeCanvas
    except ImportError:
        picture = gr.Image(
            label=label, source="upload", tool="sketch", brush_color="#ffffff", height=300, elem_id=elem_id
        )
        picture.preprocess = lambda value: value  # the texts that the browser sent, as `uploaded` has it
        return picture, gr.Textbox(visible=False, elem_id=f"{elem_id}_look")
    gr.HTML(f"<p>{label}</p>")
    fixed = {"scribble_color_fixed": True, "scribble_alpha_fixed": True, "scribble_softness_fixed": True}
    canvas = ForgeCanvas(height=300, scribble_color="#ffffff", scribble_alpha=75, numpy=True, elem_id=elem_id, **fixed)
    return canvas.background, canvas.foreground

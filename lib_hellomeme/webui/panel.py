"""The accordion: its widgets are the options of `Settings` and two pictures."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np

from lib_hellomeme.errors import HelloMemeError, SettingsError
from lib_hellomeme.face.preview import draw_preview
from lib_hellomeme.settings import OPTION_FIELDS, PREFIX, Options, Settings, grouped_options, key_of, option
from lib_hellomeme.webui import downloads
from lib_hellomeme.webui.arguments import NAMES, PICTURES, read_request
from lib_hellomeme.webui.preset import Preset
from lib_hellomeme.webui.run import read_pictures
from lib_hellomeme.webui.weights import complaints, hints


def build_panel(tab: str, preset: Preset) -> dict[str, Any]:
    """The widgets by the names of NAMES. `tab` is txt2img or img2img."""
    from modules.ui_components import InputAccordion

    widgets: dict[str, Any] = {}
    with InputAccordion(False, label="HelloMeme", elem_id=f"{tab}_hellomeme") as widgets["enabled"]:
        with gr.Row():
            for name, label in PICTURES.items():
                widgets[name] = uploaded(label, f"{tab}_hellomeme_{name}")
        look = gr.Button("Show what is seen", elem_id=f"{tab}_hellomeme_look")
        seen = gr.Image(label="Seen", visible=False, interactive=False, elem_id=f"{tab}_hellomeme_seen")
        status = gr.HTML(_lines(complaints(Settings())), elem_id=f"{tab}_hellomeme_status")
        for group, names in grouped_options().items():
            with gr.Accordion(group, open=False) if group else nullcontext():
                widgets |= {
                    name: widget(OPTION_FIELDS[name], f"{tab}_hellomeme_{name}") for name in names if name != "enabled"
                }
        preset.build(tab, widgets)
        downloads.build(tab, widgets)
        gr.HTML(_lines(hints()))
    ordered = {name: widgets[name] for name in NAMES}
    look.click(show_seen, inputs=list(ordered.values()), outputs=[seen, status], show_progress="minimal")
    return ordered


def paste_fields(widgets: Mapping[str, Any]) -> list[tuple[Any, Callable]]:
    """What restores each option's widget from a picture's parameters."""
    return [(widgets[name], restored(name)) for name in OPTION_FIELDS]


def restored(name: str, options: type[Options] = Settings, prefix: str = PREFIX) -> Callable[[Mapping[str, Any]], Any]:
    """A function from a picture's parameters to the value of an option: also an option at its default, which they do
    not name. Where they are not of ours, only the switch is turned off; None leaves a widget alone."""
    switch = next(key_of(entry, prefix) for entry in fields(options) if entry.name == "enabled")

    def value(parameters: Mapping[str, Any]) -> Any:
        if switch not in parameters:
            return False if name == "enabled" else None
        try:
            return getattr(options.from_infotext(parameters, prefix), name)
        except SettingsError:  # written by a later version
            return None

    return value


def show_seen(*arguments: Any) -> tuple[Any, str]:
    """What the face extractor saw in both pictures, side by side, and a line for each thing to say."""
    try:
        request = read_request((True, *arguments[1:]))
        complaint = complaints(request.settings)
        portrait = read_pictures(request)
    except HelloMemeError as error:
        return gr.update(visible=False), _lines([str(error)])
    drawn = [draw_preview(seen.picture, seen.face) for seen in (portrait.reference, portrait.driving)]
    return gr.update(value=side_by_side(drawn), visible=True), _lines([*portrait.warnings, *complaint])


def side_by_side(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures, RGB uint8 (H, W, 3), brought to the height of the smallest and joined."""
    height = min(picture.shape[0] for picture in pictures)
    widths = [max(1, round(picture.shape[1] * height / picture.shape[0])) for picture in pictures]
    resized = [cv2.resize(picture, (width, height)) for picture, width in zip(pictures, widths, strict=True)]
    return np.concatenate(resized, axis=1)


def widget(entry: Field, elem_id: str) -> Any:
    """What shows an option."""
    shown, default = option(entry), entry.default
    common: dict[str, Any] = {"label": shown.label, "value": default, "info": shown.help, "elem_id": elem_id}
    if isinstance(default, bool):
        return gr.Checkbox(**common)
    if shown.choices:
        return gr.Dropdown(choices=list(shown.choices), **common)
    if isinstance(default, str):
        return gr.Textbox(**common)
    minimum, maximum = shown.bounds
    return gr.Slider(minimum=minimum, maximum=maximum, step=0.01, **common)


def uploaded(label: str, elem_id: str) -> Any:
    """A place for a picture that hands on the bytes that were uploaded: gradio would drop transparency, clip 16 bits
    and fail on a damaged file with a traceback."""
    picture = gr.Image(label=label, elem_id=elem_id, height=260)
    picture.preprocess = _bytes
    return picture


def _bytes(value: Any) -> Any:
    """gradio 3 sends a data URL, gradio 4 the place of a temporary file."""
    return Path(value.path).read_bytes() if hasattr(value, "path") else value


def _lines(texts: Sequence[str]) -> str:
    return "".join(f"<p>{html.escape(text)}</p>" for text in texts)

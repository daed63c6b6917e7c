"""The button that fills in the published defaults: in our panel, and in the webui's own fields around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from lib_hellomeme.recipes import published

# The webui's fields by their elem_id behind the tab's name: what they become, of the networks and what they hold.
FIELDS: dict[str, Callable[[str, Any], Any]] = {
    "prompt": lambda generation, prompt: published.with_words(prompt, escaped(published.words_of(generation))),
    "steps": lambda generation, _: published.STEPS,
    "cfg_scale": lambda generation, _: published.CFG,
    "sampling": lambda generation, _: published.sampler_of(generation)[0],
    "scheduler": lambda generation, _: published.sampler_of(generation)[1],
    "width": lambda generation, _: published.SIDE,
    "height": lambda generation, _: published.SIDE,
}
HELP = (
    "25 steps, CFG 1.5, 512 x 512, the published sampler and words behind the prompt, the expression by PD-FGC, the "
    "reference cropped around the face. The reference pass x1 is published too: choose it under Advanced."
)


class Preset:
    """The button of one tab. The webui builds its fields before and after our panel, in an order that users can change,
    so each is connected as soon as both it and the button are there; what a webui lacks is not filled in."""

    def __init__(self) -> None:
        self._components: dict[str, Any] = {}  # by elem_id
        self._connect: Callable[[str, Any], None] | None = None

    def found(self, component: Any) -> None:
        """The hook `after_component`."""
        elem_id = getattr(component, "elem_id", None)
        if elem_id is None or elem_id in self._components:
            return
        self._components[elem_id] = component
        if self._connect is not None:
            self._connect(elem_id, component)

    def build(self, tab: str, widgets: Mapping[str, Any]) -> None:
        """The button, which fills in the panel's widgets, here by name, too."""
        button = gr.Button("Published defaults", elem_id=f"{tab}_hellomeme_published")
        gr.HTML(f"<p>{HELP}</p>")
        own = [widgets[name] for name in published.OPTIONS]
        button.click(lambda: [*published.OPTIONS.values()], inputs=[], outputs=own, show_progress="hidden")
        fields = {f"{tab}_{name}": value for name, value in FIELDS.items()}

        def connect(elem_id: str, component: Any) -> None:
            if elem_id in fields:
                inputs = [widgets["generation"], component]
                button.click(fields[elem_id], inputs=inputs, outputs=[component], show_progress="hidden")

        self._connect = connect
        for elem_id, component in self._components.items():
            connect(elem_id, component)


def escaped(words: str) -> str:
    """Words whose brackets the webui takes for letters and not for weights."""
    return words.replace("(", r"\(").replace(")", r"\)")

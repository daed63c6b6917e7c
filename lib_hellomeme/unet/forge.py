"""The port for Forge's UNet, by the patches that Forge offers on a clone of its UnetPatcher.

Forge throws the clone away after the generation, so even a run that is torn down leaves the model as it was. Forge
deep-copies a clone's options whenever somebody clones it again; plain functions survive that, bound methods and
callable objects would be duplicated with their state. Only the begin of a call, which no patch announces with its
context, is told by a torch hook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lib_hellomeme.unet.hooks import Current, tapped, watch
from lib_hellomeme.unet.ldm import LEVEL_INPUTS, LEVEL_OUTPUTS
from lib_hellomeme.unet.port import MID, UP, Begin, Call, Describe, Port, Tap

PLACES = {site: ("input", index) for site, index in LEVEL_OUTPUTS.items()} | {
    site: ("output", index) for site, index in LEVEL_INPUTS.items()
}
MIDDLE = ("middle", 0)


class ForgePort(Port):
    """Sites of the SD1.5 UNet that a Forge `UnetPatcher` (a clone of one's own) holds."""

    def __init__(self, patcher: Any) -> None:
        self.patcher = patcher
        self.unet = patcher.model.diffusion_model
        self.in_channels = self.unet.input_blocks[0][0].in_channels

    @property
    def dtype(self) -> torch.dtype:
        return self.patcher.model.computation_dtype

    @property
    def device(self) -> torch.device:
        return self.patcher.load_device

    @contextmanager
    def attach(self, taps: Sequence[Tap], describe: Describe, begin: Begin | None = None) -> Iterator[None]:
        options = self.patcher.model_options["transformer_options"]
        names = ("x", "timesteps", "context", "transformer_options")
        with watch(self.unet, names, describe, begin) as current:
            added = [_patch(tap, current) for tap in taps]
            _extend(options, added)
            try:
                yield
            finally:
                _withdraw(options, added)

    def run(self, call: Call, taps: Sequence[Tap] = ()) -> Tensor:
        options: dict[str, Any] = {}
        _extend(options, [_patch(tap, lambda: call) for tap in taps])
        forward = type(self.unet).forward
        return forward(self.unet, call.sample, call.timestep, context=call.context, transformer_options=options)


def _patch(tap: Tap, current: Current) -> tuple[str, Callable]:
    """The name of Forge's list for this tap, and the function to put there."""
    if tap.site == MID:

        def inner(h: Tensor, when: str, layer: Any, index: int, block: Any, options: dict) -> Tensor:
            last = when == "after" and options["block"] == MIDDLE and index == len(block) - 1
            return tapped(tap, h, current()) if last else h

        return "block_inner_modifiers", inner
    if tap.site in UP:

        def output(h: Tensor, skip: Tensor, options: dict) -> tuple[Tensor, Tensor]:
            return (tapped(tap, h, current()) if options["block"] == PLACES[tap.site] else h), skip

        return "output_block_patch", output

    def input(h: Tensor, options: dict) -> Tensor:
        return tapped(tap, h, current()) if options["block"] == PLACES[tap.site] else h

    return "input_block_patch" if tap.skip else "input_block_patch_after_skip", input


def _lists(options: dict, name: str) -> dict:
    """Where Forge keeps the list of that name: modifiers in the options themselves, patches one level below."""
    return options if name == "block_inner_modifiers" else options.setdefault("patches", {})


def _extend(options: dict, added: Sequence[tuple[str, Callable]]) -> None:
    for name, function in added:
        _lists(options, name).setdefault(name, []).append(function)


def _withdraw(options: dict, added: Sequence[tuple[str, Callable]]) -> None:
    for name, function in added:
        kept = [other for other in _lists(options, name)[name] if other is not function]
        if kept:
            _lists(options, name)[name] = kept
        else:
            del _lists(options, name)[name]

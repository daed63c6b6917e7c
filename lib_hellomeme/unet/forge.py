"""The port for Forge's UNet, by the patches that Forge offers on a clone of its UnetPatcher.

Forge throws the clone away after the generation, so even a run that is torn down leaves the model as it was. Forge
deep-copies a clone's options whenever somebody clones it again; plain functions survive that, bound methods and
callable objects would be duplicated with their state. Only the begin of a call, which no patch announces with its
context, is told by a torch hook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lib_hellomeme.unet.hooks import (
    Asking,
    Current,
    attention_layers,
    bare_pass,
    by_site,
    output_of,
    own_attention,
    parts_of,
    tapped,
    together,
    watch,
)
from lib_hellomeme.unet.ldm import LEVEL_INPUTS, LEVEL_OUTPUTS, LEVELS, TEMPORAL_PLACES, tap_output
from lib_hellomeme.unet.port import (
    BLOCKS,
    CROSS_ATTENTION,
    MID,
    SELF_ATTENTION,
    TEMPORAL,
    TIME_EMBEDDING,
    UP,
    AnyTap,
    AttentionTap,
    Begin,
    Call,
    Describe,
    Parts,
    Port,
    Tap,
    in_order,
)

BLOCK_PLACES = [*(("input", k) for k in range(12)), ("middle", 0), *(("output", k) for k in range(12))]
PLACES = (
    {site: ("input", index) for site, index in LEVEL_OUTPUTS.items()}
    | {site: ("output", index) for site, index in LEVEL_INPUTS.items()}
    | {MID: ("middle", 0)}
    | dict(zip(BLOCKS, BLOCK_PLACES, strict=True))
    | {site: BLOCK_PLACES[block] for site, (block, _) in TEMPORAL_PLACES.items()}
)
LAYERS = {site: layer for site, (_, layer) in TEMPORAL_PLACES.items()}  # elsewhere the block's last one
Patch = tuple[str, Callable]  # the name of one of Forge's lists, and a function to put there


class ForgePort(Port):
    """Sites of the SD1.5 UNet that a Forge `UnetPatcher` (a clone of one's own) holds, or of another `unet` of the same
    structure, which can run bare passes."""

    def __init__(self, patcher: Any, unet: Any = None) -> None:
        self.patcher = patcher
        self.unet: Any = unet or patcher.model.diffusion_model
        self.in_channels = self.unet.input_blocks[0][0].in_channels
        self.widths = tuple(self.unet.input_blocks[index][0].out_channels for index in LEVELS)
        stages = [*self.unet.input_blocks, self.unet.middle_block, *self.unet.output_blocks]
        self.attention = attention_layers(stages)
        self.attention_places = [
            (*place, index)
            for place, stage in zip(BLOCK_PLACES, stages, strict=True)
            for index, _ in enumerate(module for module in stage.modules() if hasattr(module, "attn1"))
        ]

    @property
    def dtype(self) -> torch.dtype:
        return self.patcher.model.computation_dtype

    @property
    def device(self) -> torch.device:
        return self.patcher.load_device

    @contextmanager
    def attach(self, taps: Sequence[AnyTap], describe: Describe, begin: Begin | None = None) -> Iterator[None]:
        options = self.patcher.model_options["transformer_options"]
        names = ("x", "timesteps", "context", "transformer_options")
        taps = [tap for tap in taps if not tap.riding]  # nothing rides here: no patch could part the rows
        with watch(self.unet, names, describe, begin) as watched, self._hooks(taps, watched.own):
            added = self._patches(taps, watched.own)
            _extend(options, added)
            try:
                yield
            finally:
                _withdraw(options, added)

    def run(self, call: Call, taps: Sequence[AnyTap] = ()) -> Tensor:
        options: dict[str, Any] = {}
        _extend(options, self._patches(taps, lambda: call))
        forward = type(self.unet).forward
        with bare_pass(self.unet), self._hooks(taps, lambda: call):
            return forward(self.unet, call.sample, call.timestep, context=call.context, transformer_options=options)

    @contextmanager
    def _hooks(self, taps: Sequence[AnyTap], current: Current) -> Iterator[None]:
        """What no patch reaches: the embedding of the timestep."""
        with ExitStack() as stack:
            for tap in taps:
                if isinstance(tap, Tap) and tap.site == TIME_EMBEDDING:
                    stack.callback(tap_output(self.unet.time_embed, tap, current).remove)
            yield

    def _patches(self, taps: Sequence[AnyTap], current: Current) -> list[Patch]:
        plain = [tap for tap in taps if isinstance(tap, Tap) and tap.site != TIME_EMBEDDING]
        patches = [_patch(tap, current) for tap in in_order(plain)]
        for site, here in by_site(taps).items():
            kind = "attn1" if site in SELF_ATTENTION else "attn2"
            place = self.attention_places[(SELF_ATTENTION if kind == "attn1" else CROSS_ATTENTION).index(site)]
            patches += _attention_patches(kind, place, self.attention[site], here, current)
        return patches


def _patch(tap: Tap, current: Current) -> Patch:
    if tap.site in (MID, *BLOCKS, *TEMPORAL):

        def inner(h: Tensor, when: str, layer: Any, index: int, block: Any, options: dict) -> Tensor:
            here = when == "after" and options["block"] == PLACES[tap.site]
            last = LAYERS.get(tap.site, len(block) - 1)
            return tapped(tap, h, current()) if here and index == last else h

        return "block_inner_modifiers", inner
    if tap.site in UP:

        def output(h: Tensor, skip: Tensor, options: dict) -> tuple[Tensor, Tensor]:
            return (tapped(tap, h, current()) if options["block"] == PLACES[tap.site] else h), skip

        return "output_block_patch", output

    def input(h: Tensor, options: dict) -> Tensor:
        return tapped(tap, h, current()) if options["block"] == PLACES[tap.site] else h

    return "input_block_patch" if tap.skip else "input_block_patch_after_skip", input


def _attention_patches(
    kind: str, place: tuple, layer: nn.Module, taps: Sequence[AttentionTap], current: Current
) -> list[Patch]:
    """What the taps need at one layer: Forge asks before it for keys and values, the same for all rows, and after it
    for the output. What the first was given is kept for the second."""
    asked: list[tuple[list[Asking], Tensor, list[Parts]]] = []

    def before(x: Tensor, context: Tensor, value: Tensor, options: dict) -> tuple[Tensor, Tensor, Tensor]:
        asked.clear()
        call = current()
        if call is None or (*options["block"], options["block_index"]) != place:
            return x, context, value
        asking = [(tap, call) for tap in taps]
        made = parts_of(asking, x, (context,))
        asked.append((asking, x, made))
        keys = together(made[-1], len(x))
        if value is not context:  # another patch gave the values tokens of their own
            return x, keys, together(parts_of(asking, x, (value,))[-1], len(x))
        return x, keys, keys

    def after(output: Tensor, options: dict) -> Tensor:
        if not asked:
            return output
        asking, x, made = asked.pop()
        return output_of(asking, own_attention(layer, x), x, made, output)

    return [(f"{kind}_patch", before), (f"{kind}_output_patch", after)]


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

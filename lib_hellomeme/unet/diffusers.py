"""The port for diffusers' UNet (`UNet2DConditionModel`). It is told by its attributes: nothing is imported."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lib_hellomeme.unet.hooks import Current, HookPort, tapped
from lib_hellomeme.unet.port import BLOCKS, DOWN, MID, TEMPORAL, TIME_EMBEDDING, Call, Tap


class DiffusersPort(HookPort):
    """Sites of a diffusers UNet of SD1.5's structure, of any width."""

    argument_names = ("sample", "timestep", "encoder_hidden_states", "options")
    context_name = "encoder_hidden_states"

    def __init__(self, unet: Any) -> None:
        super().__init__(unet, [*unet.down_blocks, unet.mid_block, *unet.up_blocks])
        self.in_channels = unet.conv_in.in_channels
        self.widths = tuple(unet.config.block_out_channels)
        self.blocks = _last_layers(unet)
        levels = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
        self.pairs = [layer for level in levels for layer in getattr(level, "attentions", level.resnets)]

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype  # knows what layerwise casting computes in

    def _hook(self, tap: Tap, current: Current) -> RemovableHandle:
        if tap.site == TIME_EMBEDDING:
            return _tap_output(self.unet.time_embedding, tap, current)
        if tap.site in TEMPORAL:
            return _tap_output(self.pairs[TEMPORAL.index(tap.site)], tap, current)
        if tap.site in BLOCKS:
            return _tap_output(self.blocks[BLOCKS.index(tap.site)], tap, current)
        index = int(tap.site[-1]) if tap.site != MID else 0
        if tap.site in DOWN:
            return _tap_down_block(self.unet.down_blocks[index], tap, current)
        if tap.site == MID:
            return _tap_output(self.unet.mid_block, tap, current)
        return _tap_up_block(self.unet.up_blocks[index], tap, current)

    def _forward(self, call: Call) -> Tensor:
        return type(self.unet).forward(self.unet, call.sample, call.timestep, call.context, return_dict=False)[0]


def _last_layers(unet: Any) -> list[nn.Module]:
    """The layers whose outputs LDM's input, middle and output blocks have, in the order in which they run."""
    layers = [unet.conv_in]
    for level in unet.down_blocks:
        layers += getattr(level, "attentions", level.resnets)
        layers += level.downsamplers or ()
    layers.append(unet.mid_block)
    for level in unet.up_blocks:
        layers += getattr(level, "attentions", level.resnets)
        if level.upsamplers:
            layers[-1] = level.upsamplers[0]
    return layers


def _tap_output(layer: nn.Module, tap: Tap, current: Current) -> RemovableHandle:
    def hook(module: nn.Module, args: tuple, output: Tensor | tuple[Tensor]) -> Tensor | tuple[Tensor]:
        if isinstance(output, tuple):  # transformers
            return (tapped(tap, output[0], current()),)
        return tapped(tap, output, current())

    return layer.register_forward_hook(hook)


def _tap_down_block(block: nn.Module, tap: Tap, current: Current) -> RemovableHandle:
    def hook(module: nn.Module, args: tuple, output: tuple) -> tuple:
        hidden, skips = output  # skips[-1] is hidden itself
        changed = tapped(tap, hidden, current())
        return changed, (*skips[:-1], changed) if tap.skip else skips

    return block.register_forward_hook(hook)


def _tap_up_block(block: nn.Module, tap: Tap, current: Current) -> RemovableHandle:
    def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return args, kwargs | {"hidden_states": tapped(tap, kwargs["hidden_states"], current())}

    return block.register_forward_pre_hook(hook, with_kwargs=True)

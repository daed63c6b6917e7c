"""The port for LDM's UNet, which AUTOMATIC1111 runs (`ldm.modules.diffusionmodules.openaimodel.UNetModel`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lib_hellomeme.unet.hooks import Current, HookPort, tapped
from lib_hellomeme.unet.port import BLOCKS, DOWN, MID, TEMPORAL, TIME_EMBEDDING, UP, Call, Tap

LEVEL_OUTPUTS: dict[str, int] = dict(
    zip(DOWN, (3, 6, 9, 11), strict=True)
)  # input_blocks whose output leaves an encoder level
# Of each pair of resnet and attention, the block (counted through input, middle and output) and its last layer there.
TEMPORAL_PLACES: dict[str, tuple[int, int]] = dict(
    zip(
        TEMPORAL,
        [(block, 1) for block in (1, 2, 4, 5, 7, 8)]
        + [(10, 0), (11, 0), (12, 1)]
        + [(13 + k, int(k > 2)) for k in range(12)],
        strict=True,
    )
)
LEVELS = (1, 4, 7, 10)  # input_blocks that begin with a resnet of each level
LEVEL_INPUTS: dict[str, int] = dict(zip(UP, (0, 3, 6, 9), strict=True))  # output_blocks at which a decoder level begins


class LdmPort(HookPort):
    """Sites of an LDM UNet of SD1.5's structure, of any width."""

    argument_names = ("x", "timesteps", "context", "options")
    context_name = "context"

    def __init__(self, unet: Any) -> None:
        self.blocks = [*unet.input_blocks, unet.middle_block, *unet.output_blocks]
        super().__init__(unet, self.blocks)
        self.in_channels = unet.input_blocks[0][0].in_channels
        self.widths = tuple(unet.input_blocks[index][0].out_channels for index in LEVELS)

    def _hook(self, tap: Tap, current: Current) -> RemovableHandle:
        unet = self.unet
        if tap.site == TIME_EMBEDDING:
            return tap_output(unet.time_embed, tap, current)
        if tap.site in BLOCKS:
            return tap_output(self.blocks[BLOCKS.index(tap.site)], tap, current)
        if tap.site in TEMPORAL:
            block, layer = TEMPORAL_PLACES[tap.site]
            return tap_output(self.blocks[block][layer], tap, current)
        if tap.site in DOWN and not tap.skip:
            following = LEVEL_OUTPUTS[tap.site] + 1
            block = unet.input_blocks[following] if following < len(unet.input_blocks) else unet.middle_block
            return _tap_input(block, tap, current)
        if tap.site in DOWN:
            return tap_output(unet.input_blocks[LEVEL_OUTPUTS[tap.site]], tap, current)
        if tap.site == MID:
            return tap_output(unet.middle_block, tap, current)
        index = LEVEL_INPUTS[tap.site]
        previous = unet.output_blocks[index - 1] if index else unet.middle_block
        return _tap_input(unet.output_blocks[index], tap, current, channels=previous[0].out_channels)

    def _forward(self, call: Call) -> Tensor:
        return type(self.unet).forward(self.unet, call.sample, call.timestep, context=call.context)


def tap_output(block: nn.Module, tap: Tap, current: Current) -> RemovableHandle:
    def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return tapped(tap, output, current())

    return block.register_forward_hook(hook)


def _tap_input(block: nn.Module, tap: Tap, current: Current, channels: int | None = None) -> RemovableHandle:
    """Tap the first `channels` channels of what enters `block`; a skip connection is joined behind them."""

    def hook(module: nn.Module, args: tuple) -> tuple | None:
        entering, *rest = args
        hidden = entering[:, :channels]
        changed = tapped(tap, hidden, current())
        if changed is hidden:
            return None
        if channels is not None:
            changed = torch.cat([changed, entering[:, channels:]], dim=1)
        return (changed, *rest)

    return block.register_forward_pre_hook(hook)

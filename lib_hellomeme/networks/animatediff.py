"""AnimateDiff's motion layers: a temporal transformer after each pair of resnet and attention of the UNet."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

from torch import nn

from lib_hellomeme.networks.reference import PUBLISHED_WIDTHS
from lib_hellomeme.networks.temporal import TemporalTransformer

T = TypeVar("T")


class MotionModules(nn.Module):
    """The layers of one UNet level."""

    def __init__(self, channels: int, count: int, heads: int, max_frames: int) -> None:
        super().__init__()
        self.motion_modules = nn.ModuleList(TemporalTransformer(channels, heads, max_frames) for _ in range(count))


class AnimateDiffAdapter(nn.Module):
    """Motion layers for a whole UNet under diffusers' names; the middle block has one in v2 only."""

    def __init__(
        self,
        widths: Sequence[int] = PUBLISHED_WIDTHS,
        heads: int = 8,
        max_frames: int = 32,
        mid_block: bool = False,
    ) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList(MotionModules(width, 2, heads, max_frames) for width in widths)
        self.up_blocks = nn.ModuleList(MotionModules(width, 3, heads, max_frames) for width in reversed(widths))
        self.mid_block = MotionModules(widths[-1], 1, heads, max_frames) if mid_block else None

    def layers(self) -> dict[str, TemporalTransformer]:
        """The layers by place: "down.<level>.<pair>", "mid.0", "up.<level>.<pair>", in the order of execution."""
        levels = {f"down.{level}": modules for level, modules in enumerate(self.down_blocks)}
        if self.mid_block is not None:
            levels["mid"] = self.mid_block
        levels |= {f"up.{level}": modules for level, modules in enumerate(self.up_blocks)}
        return {
            f"{level}.{pair}": cast(TemporalTransformer, layer)
            for level, modules in levels.items()
            for pair, layer in enumerate(cast(MotionModules, modules).motion_modules)
        }


_ORIGINAL_PARTS = (
    (r"\.temporal_transformer\.", "."),
    # Both attentions of a block store the same table.
    (r"\.attention_blocks\.[01]\.pos_encoder\.pe$", ".pos_embed.pe"),
    (r"\.attention_blocks\.0\.", ".attn1."),
    (r"\.attention_blocks\.1\.", ".attn2."),
    (r"\.norms\.0\.", ".norm1."),
    (r"\.norms\.1\.", ".norm2."),
    (r"\.ff_norm\.", ".norm3."),
)


def with_diffusers_names(tensors: Mapping[str, T]) -> dict[str, T]:
    """The tensors (or shapes) of a file in AnimateDiff's original naming under diffusers' names; others unchanged."""
    return {
        _diffusers_name(name) if ".temporal_transformer." in name else name: tensor for name, tensor in tensors.items()
    }


def _diffusers_name(name: str) -> str:
    for pattern, replacement in _ORIGINAL_PARTS:
        name = re.sub(pattern, replacement, name)
    return name

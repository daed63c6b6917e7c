"""HelloMeme's own motion adapters: attention along the frames, with a padding frame before and one behind them.

All layers share one signature: layer(hidden, padding, time_embedding, frames).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from lib_hellomeme.networks.attention import Attention
from lib_hellomeme.networks.feed_forward import FeedForward
from lib_hellomeme.networks.positional import SinusoidalPositionalEmbedding
from lib_hellomeme.networks.reference import PUBLISHED_WIDTHS, up_widths
from lib_hellomeme.networks.temporal import TemporalTransformer


class KnittedMotion(nn.Module):
    """v3 and v4: one temporal attention that knows the timestep, then a convolution."""

    def __init__(self, channels: int, heads: int = 8, time_width: int = 1280) -> None:
        super().__init__()
        self.pos_embed_t = SinusoidalPositionalEmbedding(channels, length=154)
        self.time_emb_proj = nn.Linear(time_width, channels)
        self.temp_attn = Attention(channels, heads)
        self.norm = nn.LayerNorm(channels)
        self.ff = FeedForward(channels, channels * 2)
        self.proj = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, hidden: Tensor, padding: Tensor, time_embedding: Tensor, frames: int) -> Tensor:
        """hidden (rows*frames, C, h, w), padding (rows, C, 2, h, w) (first and last frame), time_embedding
        (rows*frames, time width; a row's first entry counts) to (rows*frames, C, h, w)."""
        x = _between(padding, hidden, frames) + self.time_emb_proj(time_embedding[::frames])[:, None, :, None, None]
        x = x.permute(0, 3, 4, 1, 2)  # rows h w frames+2 C
        x = self.norm(x + self.pos_embed_t.table(frames + 2))
        x = self.ff(self.temp_attn(x[..., 1:-1, :], x))  # rows h w frames C
        return hidden + self.proj(x.permute(0, 3, 4, 1, 2).flatten(0, 1))


class KnittedMotionV5(nn.Module):
    """v5 and v5b: a temporal transformer over the padded frames, then one over the frames alone."""

    def __init__(self, channels: int, heads: int = 8, max_frames: int = 32) -> None:
        super().__init__()
        self.attn1 = TemporalTransformer(channels, heads, max_frames)
        self.attn_pad = TemporalTransformer(channels, heads, max_frames)

    def forward(self, hidden: Tensor, padding: Tensor | None, time_embedding: Tensor | None, frames: int) -> Tensor:
        """hidden (rows*frames, C, h, w), padding (rows, C, 2, h, w) or None, to (rows*frames, C, h, w)."""
        x = hidden
        if padding is not None:
            padded = self.attn_pad(_between(padding, hidden, frames).flatten(0, 1), frames + 2)
            x = hidden + padded.unflatten(0, (-1, frames + 2))[:, 1:-1].flatten(0, 1)
        return self.attn1(x, frames)


def _between(padding: Tensor, hidden: Tensor, frames: int) -> Tensor:
    """padding (rows, C, 2, h, w) around hidden (rows*frames, C, h, w): (rows, frames+2, C, h, w)."""
    first, last = padding.transpose(1, 2).split(1, dim=1)  # rows 1 C h w
    return torch.cat([first, hidden.unflatten(0, (-1, frames)), last], dim=1)


class MotionAdapter(nn.Module):
    """A layer after every encoder level and before every decoder level."""

    def __init__(
        self,
        widths: Sequence[int] = PUBLISHED_WIDTHS,
        heads: int = 8,
        layer: Callable[[int, int], nn.Module] = KnittedMotionV5,
    ) -> None:
        super().__init__()
        self.motion_down = nn.ModuleList(layer(width, heads) for width in widths)
        self.motion_up = nn.ModuleList(layer(width, heads) for width in up_widths(widths))

    def sites(self) -> dict[str, KnittedMotion | KnittedMotionV5]:
        """The layers by the UNet site that they stand at."""
        layers = {f"down.{level}": layer for level, layer in enumerate(self.motion_down)}
        layers |= {f"up.{level}": layer for level, layer in enumerate(self.motion_up)}
        return cast(dict[str, "KnittedMotion | KnittedMotionV5"], layers)

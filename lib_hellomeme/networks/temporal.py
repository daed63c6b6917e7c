"""The temporal transformer of AnimateDiff (arXiv 2307.04725), under diffusers' tensor names."""

from __future__ import annotations

from torch import Tensor, nn

from lib_hellomeme.networks.attention import Attention
from lib_hellomeme.networks.feed_forward import FeedForward
from lib_hellomeme.networks.positional import SinusoidalPositionalEmbedding


class TemporalBlock(nn.Module):
    """Two self-attentions along the frames and a feed-forward, each after its own norm and with its own residual."""

    def __init__(self, channels: int, heads: int, max_frames: int) -> None:
        super().__init__()
        self.pos_embed = SinusoidalPositionalEmbedding(channels, max_frames)
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, heads)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels, channels * 4)

    def forward(self, x: Tensor) -> Tensor:
        """(..., frames, C) to the same."""
        positions = self.pos_embed.table(x.shape[-2])
        x = x + self.attn1(self.norm1(x) + positions)
        x = x + self.attn2(self.norm2(x) + positions)
        return x + self.ff(self.norm3(x))


class TemporalTransformer(nn.Module):
    """Every pixel looks at itself in the other frames. The group norm spans all frames, as in diffusers."""

    def __init__(self, channels: int, heads: int = 8, max_frames: int = 32) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(channels, heads, max_frames)])
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, hidden: Tensor, frames: int) -> Tensor:
        """hidden (rows*frames, C, h, w) to the same."""
        x = hidden.unflatten(0, (-1, frames)).transpose(1, 2)  # rows C frames h w
        x = self.proj_in(self.norm(x).permute(0, 3, 4, 2, 1))  # rows h w frames C
        for block in self.transformer_blocks:
            x = block(x)
        return hidden + self.proj_out(x).permute(0, 3, 4, 1, 2).flatten(0, 1)

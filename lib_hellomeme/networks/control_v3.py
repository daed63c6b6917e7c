"""The control networks of v1, v2 and v3: one way down, each level's features being a site's residual."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lib_hellomeme.networks.attention import Attention
from lib_hellomeme.networks.control import shrink
from lib_hellomeme.networks.convolutions import DownBlock
from lib_hellomeme.networks.expression import (
    ARKIT_SCALE,
    PDFGC_SCALE,
    ArkitExpression,
    Expression,
    ExpressionKind,
    PdfgcExpression,
)
from lib_hellomeme.networks.feed_forward import FeedForward, TimestepEmbedding
from lib_hellomeme.networks.positional import SinusoidalPositionalEmbedding, timestep_embedding
from lib_hellomeme.networks.reference import PUBLISHED_WIDTHS


class KnittedCrossAttention(nn.Module):
    """Half the resolution, then image tokens ask the expression's tokens: along the rows, then along the columns."""

    def __init__(
        self, in_channels: int, channels: int, context_width: int, context_length: int, heads: int = 8
    ) -> None:
        super().__init__()
        self.conv = DownBlock(in_channels, channels)
        self.pos_embed = SinusoidalPositionalEmbedding(channels, length=64)
        self.pos_embed_hidden = SinusoidalPositionalEmbedding(context_width, context_length)
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, heads, context_width)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, heads, context_width)
        self.ff = FeedForward(channels, channels * 2)
        self.proj = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        """features (n, in, 2h, 2w), context (n, k, context width) to (n, C, h, w)."""
        x = self.conv(features).permute(0, 2, 3, 1)  # n h w C
        height, width = x.shape[1:3]
        context = context + self.pos_embed_hidden.table(context.shape[1])
        # Every line asks the same tokens, so all lines of a map are one sequence of queries.
        x = self.attn1(self.norm1(x + self.pos_embed.table(width)).flatten(1, 2), context)  # n h*w C
        x = x.unflatten(1, (height, width))  # n h w C
        x = self.attn2(self.norm2(x + self.pos_embed.table(height)[:, None]).flatten(1, 2), context)  # n h*w C
        x = self.ff(x).unflatten(1, (height, width))  # n h w C
        return self.proj(x.permute(0, 3, 1, 2))


class KnittedControl(nn.Module):
    """v1 and v2: a network for each kind of expression. `sites` go from the finest features to the coarsest."""

    def __init__(
        self,
        sites: Sequence[str],
        channels: Sequence[int],
        factor: int,
        kinds: Sequence[ExpressionKind],
        context_width: int = 320,
        context_length: int = 1024,
        stem: int = 128,
    ) -> None:
        super().__init__()
        self.sites = tuple(sites)
        self.factor = factor
        self.conv_in = nn.Conv2d(3, stem, kernel_size=3, padding=1, bias=False)
        arkit, pdfgc = "arkit" in kinds, "pdfgc" in kinds
        self.exp_proj = TimestepEmbedding(context_width, context_width) if arkit else None
        self.face_proj = TimestepEmbedding(1024, context_width) if arkit else None
        self.emo_proj = TimestepEmbedding(context_width, context_width) if pdfgc else None
        self.blocks_down = nn.ModuleList(
            KnittedCrossAttention(width_in, width_out, context_width, context_length)
            for width_in, width_out in zip([stem, *channels[:-1]], channels, strict=True)
        )
        self.context_width = context_width

    def forward(self, condition: Tensor, expression: Expression) -> dict[str, Tensor]:
        """condition (n, 3, H, W) in [-1, 1] to residuals by site. ValueError for an expression of the other kind."""
        context = self._tokens(expression)
        x = self.conv_in(shrink(condition, self.factor, self.conv_in.weight))
        residuals = {}
        for site, block in zip(self.sites, self.blocks_down, strict=True):
            residuals[site] = x = block(x, context)
        return residuals

    def _tokens(self, expression: Expression) -> Tensor:
        """(n, 54 or 548, context width) in the dtype of the weights."""
        dtype = self.conv_in.weight.dtype
        if isinstance(expression, ArkitExpression) and self.exp_proj and self.face_proj:
            values = timestep_embedding(expression.coefficients * ARKIT_SCALE, self.context_width).to(dtype)  # n 51 C
            return self.exp_proj(torch.cat([self.face_proj(expression.face_parts.to(dtype)), values], dim=1))
        if isinstance(expression, PdfgcExpression) and self.emo_proj:
            values = timestep_embedding(expression.embedding * PDFGC_SCALE, self.context_width).to(dtype)  # n 548 C
            return self.emo_proj(values)
        raise ValueError(f"this control network does not take an expression of the kind {type(expression).__name__}")


def control_v1(kind: ExpressionKind, widths: Sequence[int] = PUBLISHED_WIDTHS, **sizes: int) -> KnittedControl:
    """After encoder levels 0 to 2."""
    context_length = 64 if kind == "arkit" else 1024
    return KnittedControl(
        ("down.0", "down.1", "down.2"), widths[:3], 8, (kind,), context_length=context_length, **sizes
    )


def control_v2(kind: ExpressionKind, widths: Sequence[int] = PUBLISHED_WIDTHS, **sizes: int) -> KnittedControl:
    """Before every decoder level."""
    return KnittedControl(UP_SITES, _up_channels(widths), 4, (kind,), **sizes)


UP_SITES = ("up.3", "up.2", "up.1", "up.0")


def _up_channels(widths: Sequence[int]) -> tuple[int, int, int, int]:
    return widths[1], widths[2], widths[3], widths[3]


class ControlV3(KnittedControl):
    """Before every decoder level and after every encoder level, for both kinds of expression."""

    def __init__(self, widths: Sequence[int] = PUBLISHED_WIDTHS, **sizes: int) -> None:
        super().__init__(UP_SITES, _up_channels(widths), 4, ("arkit", "pdfgc"), **sizes)
        self.conv_up2_down0 = nn.Conv2d(widths[2], widths[0], kernel_size=1, bias=False)
        self.conv_up1_down1 = nn.Conv2d(widths[3], widths[1], kernel_size=1, bias=False)

    def forward(self, condition: Tensor, expression: Expression) -> dict[str, Tensor]:
        residuals = super().forward(condition, expression)
        return {
            **residuals,
            "down.0": self.conv_up2_down0(residuals["up.2"]),
            "down.1": self.conv_up1_down1(residuals["up.1"]),
            "down.2": residuals["up.0"],
            "down.3": residuals["up.0"],
        }

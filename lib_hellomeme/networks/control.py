"""Control networks: a drawn head pose and an expression become features that are added to the UNet's.

v4 and v5 are a base (`ControlBase`), shared by every SD1.5-shaped network, and a projection (`ControlProjection`) onto
the widths of one; `ProjectedControl` is the two together. Rows and frames share one batch axis n everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from lib_hellomeme.networks.attention import Attention
from lib_hellomeme.networks.convolutions import DownBlock, UpBlock
from lib_hellomeme.networks.expression import Expression, ExpressionTokens
from lib_hellomeme.networks.feed_forward import FeedForward
from lib_hellomeme.networks.knitting import STKAttention
from lib_hellomeme.networks.positional import SinusoidalPositionalEmbedding, stacked_positions
from lib_hellomeme.networks.reference import PUBLISHED_WIDTHS


class STKCrossAttention(nn.Module):
    """v5: image tokens ask the expression's tokens, with row positions first and column positions second."""

    def __init__(self, channels: int, context_width: int, heads: int = 8) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.norm = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, heads, context_width)
        self.attn2 = Attention(channels, heads, context_width)
        self.ff = FeedForward(channels, channels * 16)
        self.proj = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        """features (n, C, h, w), context (n, k, context width) to (n, C, h, w)."""
        x = self.conv_in(features).permute(0, 2, 3, 1)  # n h w C
        height, width = x.shape[1:3]
        context = context + self.context_positions(context)
        # Every line asks the same tokens, so all lines of a map are one sequence of queries.
        x = self.attn1(self.norm(x + self.positions(width, x)).flatten(1, 2), context)  # n h*w C
        x = x.unflatten(1, (height, width))  # n h w C
        x = self.attn2(self.norm(x + self.positions(height, x)[:, None]).flatten(1, 2), context)  # n h*w C
        x = self.norm(self.ff(x)).unflatten(1, (height, width))  # n h w C
        return self.proj(x.permute(0, 3, 1, 2))

    def positions(self, length: int, like: Tensor) -> Tensor:
        """The table (length, C) of image tokens along a row or column."""
        return stacked_positions(length, like.shape[-1], like.dtype, like.device)

    def context_positions(self, context: Tensor) -> Tensor:
        """The table (k, context width) of expression tokens."""
        return stacked_positions(*context.shape[-2:], context.dtype, context.device)


class STKCrossAttentionV4(STKCrossAttention):
    """v4: the same with stored positional tables."""

    def __init__(self, channels: int, context_width: int, heads: int = 8) -> None:
        super().__init__(channels, context_width, heads)
        self.pos_embed = SinusoidalPositionalEmbedding(channels, length=512)
        self.pos_embed_hidden = SinusoidalPositionalEmbedding(context_width, length=1024)

    def positions(self, length: int, like: Tensor) -> Tensor:
        return self.pos_embed.table(length)

    def context_positions(self, context: Tensor) -> Tensor:
        return self.pos_embed_hidden.table(context.shape[-2])


CrossAttentionBlock = Callable[[int, int, int], nn.Module]
"""(channels, context width, heads) to one of the two classes above."""


class ControlUNet(nn.Module):
    """Three levels down, each asking the expression, and three up."""

    def __init__(self, widths: Sequence[int], context_width: int, heads: int, block: CrossAttentionBlock) -> None:
        super().__init__()
        down = [3, *widths]
        up = [*reversed(widths), widths[0]]
        self.down_blocks = nn.ModuleList(map(DownBlock, down[:-1], down[1:]))
        self.up_blocks = nn.ModuleList(map(UpBlock, up[:-1], up[1:]))
        self.attn_blocks = nn.ModuleList(block(width, context_width, heads) for width in widths)

    def forward(self, x: Tensor, context: Tensor) -> list[Tensor]:
        """x (n, 3, h, w) to four maps, at h/8, h/4, h/2 and h."""
        sizes, skips = [], []
        for down_block, attention in zip(self.down_blocks, self.attn_blocks, strict=True):
            sizes.append(x.shape[-2:])
            x = attention(down_block(x), context)
            skips.append(x)
        features = [skips.pop()]
        for up_block in self.up_blocks:
            x = up_block(features[-1], sizes.pop())
            features.append(x + skips.pop() if skips else x)
        return features


class ControlBase(ExpressionTokens):
    """The control network up to its four feature maps; `block` is what distinguishes v4's from v5's."""

    def __init__(
        self,
        widths: Sequence[int] = PUBLISHED_WIDTHS,
        context_width: int = 2048,
        heads: int = 8,
        block: CrossAttentionBlock = STKCrossAttention,
    ) -> None:
        super().__init__(context_width)
        self.ctrl_attn = ControlUNet(widths[:3], context_width, heads, block)

    def forward(self, condition: Tensor, expression: Expression) -> list[Tensor]:
        """condition (n, 3, H, W) in [-1, 1] to four maps, at H/64, H/32, H/16 and H/8."""
        return self.ctrl_attn(shrink(condition, 8, self.exp_proj.linear_1.weight), self.tokens(expression))


def shrink(condition: Tensor, factor: int, like: Tensor) -> Tensor:
    """condition (n, 3, H, W) to (n, 3, H/factor, W/factor), bilinear, in the dtype of `like`."""
    size = (condition.shape[-2] // factor, condition.shape[-1] // factor)
    return F.interpolate(condition.to(like.dtype), size=size, mode="bilinear", align_corners=False)


class KnittedProjector(nn.Module):
    """v5: a convolution, refined by knitting attention at a quarter of its width."""

    def __init__(self, in_channels: int, out_channels: int, heads: int = 8) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.attn = STKAttention(out_channels, out_channels // 4, heads)

    def forward(self, features: Tensor) -> Tensor:
        x = self.proj(features)
        return x + self.attn(x)


class ControlProjection(nn.Module):
    """The four maps of a control base become the residuals of the eight sites.

    The tensor names hold the published widths, whatever the widths are.
    """

    def __init__(
        self,
        widths: Sequence[int] = PUBLISHED_WIDTHS,
        projector: Callable[[int, int], nn.Module] = KnittedProjector,
    ) -> None:
        super().__init__()
        w0, w1, w2, w3 = widths
        self.map640_to_640 = projector(w1, w1)
        self.map640_to_1280 = projector(w1, w3)
        self.map320_to_320 = projector(w0, w0)
        self.map320_to_640 = projector(w0, w1)
        self.map320_to_1280 = projector(w0, w2)
        self.map1280_to_1280 = projector(w2, w3)
        self.map1280_to_1280_2 = projector(w2, w2)
        self.map1280_to_1280_3 = projector(w2, w3)

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Maps at H/64, H/32, H/16, H/8 to residuals by site."""
        eighth, quarter, half, whole = features  # of the latents' size
        maps = {"down.0": half, "down.1": quarter, "down.2": eighth, "down.3": eighth}
        maps |= {"up.0": eighth, "up.1": quarter, "up.2": half, "up.3": whole}
        return {site: projector(maps[site]) for site, projector in self.sites().items()}

    def sites(self) -> dict[str, nn.Module]:
        """The projectors by the UNet site that each adds to."""
        return {
            "down.0": self.map320_to_320,
            "down.1": self.map640_to_640,
            "down.2": self.map1280_to_1280_2,
            "down.3": self.map1280_to_1280_3,
            "up.0": self.map1280_to_1280,
            "up.1": self.map640_to_1280,
            "up.2": self.map320_to_1280,
            "up.3": self.map320_to_640,
        }


ConvolutionProjector = partial(nn.Conv2d, kernel_size=3, padding=1, bias=False)
"""v4's projector."""


class ProjectedControl(nn.Module):
    """v4, v5, v5b, v5c: base and projection as one control network."""

    def __init__(self, base: ControlBase, projection: ControlProjection) -> None:
        super().__init__()
        self.base = base
        self.projection = projection

    def forward(self, condition: Tensor, expression: Expression) -> dict[str, Tensor]:
        """condition (n, 3, H, W) in [-1, 1] to residuals by site."""
        return self.projection(self.base(condition, expression))

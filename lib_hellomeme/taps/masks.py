"""Masks on pictures and references, brought to the places of an attention layer or a block."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lib_hellomeme.errors import HostError
from lib_hellomeme.unet.port import Selection

LEVELS = 4


def token_grid(tokens: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of an attention layer's tokens, in a UNet that works on latents of height x width.

    Raises HostError where no level of the UNet has so many: something merges tokens or resizes features.
    """
    for _ in range(LEVELS):
        if height * width == tokens:
            return height, width
        height, width = -(-height // 2), -(-width // 2)
    raise HostError("A mask needs every place of the picture: switch off token merging and Kohya HRFix, or the mask.")


def shares(mask: Tensor, height: int, width: int) -> Tensor:
    """mask (1, 1, H, W) as the share of each place that it covers, (1, 1, height, width) in [0, 1]."""
    return F.adaptive_avg_pool2d(mask.float(), (height, width))


def touched(mask: Tensor, height: int, width: int) -> Tensor:
    """mask (1, 1, H, W) as the places that it touches, bool (1, 1, height, width): never empty if the mask is not."""
    return F.adaptive_max_pool2d(mask.float(), (height, width)) >= 0.5


def keep_touched(tokens: Tensor, mask: Tensor, height: int, width: int) -> Tensor:
    """The tokens (n, t, C) of latents of height x width that `mask` (1, 1, H, W) touches; the others are removed."""
    chosen = touched(mask, *token_grid(tokens.shape[1], height, width)).flatten().to(tokens.device)
    return tokens[:, chosen]


def zero_untouched(tokens: Tensor, mask: Tensor, height: int, width: int) -> Tensor:
    """The tokens (n, t, C) with zeros outside `mask` (1, 1, H, W), which is first thickened by one place.

    A zeroed token still takes its part of the attention: its logit is 0, its value nothing.
    """
    rows, columns = token_grid(tokens.shape[1], height, width)
    small = F.interpolate(mask.float(), (rows, columns))  # nearest
    thick = F.max_pool2d(small, 3, stride=1, padding=1)
    return tokens * thick.reshape(1, -1, 1).to(tokens)


def selection(flags: list[bool]) -> Selection:
    """The rows whose flag is set: as a slice, which needs no copy, where they stand together."""
    rows = [row for row, flag in enumerate(flags) if flag]
    return slice(rows[0], rows[-1] + 1) if rows and rows[-1] - rows[0] + 1 == len(rows) else rows


def per_row(share: tuple[float, ...], like: Tensor) -> Tensor:
    """One number a row, shaped to multiply `like` (n, ...)."""
    return torch.tensor(share, dtype=like.dtype, device=like.device).reshape(-1, *[1] * (like.ndim - 1))

"""S: features take the mean and the variance of a reference's (adaptive instance normalisation).

Huang and Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization", arXiv 1703.06868:

    restyled = (x − μ) / √max(σ², ε) · √max(σ_r², ε) + μ_r        out = x + Σ share · (restyled − x)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_hellomeme.taps.bank import Bank
from lib_hellomeme.taps.masks import per_row, shares, touched
from lib_hellomeme.unet.port import Call, Tap

EPSILON = 1e-6


@dataclass(frozen=True)
class Style:
    """Statistics (n or 1, 2, C, 1, 1), mean and variance of each channel, how far each row takes them, and where in
    the picture: `where` (1, 1, h, w) in [0, 1], None for everywhere."""

    statistics: Tensor
    share: tuple[float, ...]
    where: Tensor | None = None


def statistics(features: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean and variance of each channel of features (n, C, h, w) over the places that `mask` (1, 1, H, W) touches, as
    (n, 2, C, 1, 1)."""
    if mask is not None:
        chosen = touched(mask, *features.shape[-2:])[0, 0].to(features.device)
        features = features[..., chosen].unsqueeze(-1)  # (n, C, places, 1)
    variance, mean = torch.var_mean(features, dim=(2, 3), keepdim=True, correction=0)
    return torch.stack([mean, variance], dim=1)


def record_statistics(site: str, bank: Bank, mask: Tensor | None = None) -> Tap:
    """A tap that puts the statistics of what passes `site` into `bank`."""

    def record(hidden: Tensor, call: Call) -> Tensor:
        bank[site] = statistics(hidden, mask)
        return hidden

    return Tap(site, record)


def restyled(hidden: Tensor, target: Tensor) -> Tensor:
    """hidden (n, C, h, w) with the statistics `target` (n or 1, 2, C, 1, 1)."""
    mean, variance = statistics(hidden).unbind(1)
    target_mean, target_variance = target.to(hidden).unbind(1)
    deviation, target_deviation = (value.clamp(min=EPSILON).sqrt() for value in (variance, target_variance))
    return (hidden - mean) / deviation * target_deviation + target_mean


def adain(site: str, styles: Callable[[Call], Sequence[Style]]) -> Tap:
    """A tap that gives features the styles of `styles(call)`, by the formula above."""

    def restyle(hidden: Tensor, call: Call) -> Tensor:
        changed = hidden
        for style in styles(call):
            weight = per_row(style.share, hidden)
            if style.where is not None:
                weight = weight * shares(style.where, *hidden.shape[-2:]).to(hidden)
            changed = changed + weight * (restyled(hidden, style.statistics) - hidden)
        return changed

    return Tap(site, restyle)

"""M: something added to the features at a site."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from lib_hellomeme.unet.port import DOWN, Call, Tap


def add_residual(site: str, residual: Callable[[Call], Tensor | None]) -> Tap:
    """A tap that adds `residual(call)` (n, C, h, w) at `site`; None adds nothing. In the encoder the skip connection
    carries the sum too.

    Where the latent's sides are no multiples of 8, the levels of a UNet round up or down; a residual of another size is
    then brought to the features' size by the nearest neighbour, as the webuis do with skip connections.
    """

    def add(hidden: Tensor, call: Call) -> Tensor:
        extra = residual(call)
        if extra is None:
            return hidden
        if extra.shape[-2:] != hidden.shape[-2:]:
            extra = F.interpolate(extra, size=hidden.shape[-2:], mode="nearest")
        return hidden + extra

    return Tap(site, add, skip=site in DOWN)

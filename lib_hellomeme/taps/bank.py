"""W: the bank writer. Features that a bare pass leaves at named sites."""

from __future__ import annotations

from torch import Tensor

from lib_hellomeme.unet.port import DOWN, Call, Tap

Bank = dict[str, Tensor]  # site -> features (rows, C, h, w)


def record(site: str, bank: Bank) -> Tap:
    """A tap that keeps what passes `site` in `bank`, before the taps that follow it change it."""

    def keep(hidden: Tensor, call: Call) -> Tensor:
        bank[site] = hidden
        return hidden

    return Tap(site, keep, skip=site in DOWN)

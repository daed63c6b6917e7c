"""W: the bank writer. Features that a bare pass leaves at named sites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from torch import Tensor

from lib_hellomeme.unet.port import DOWN, AnyTap, Call, Port, Tap

Bank = dict[str, Tensor]  # site -> features (rows, ...)


def record(site: str, bank: Bank) -> Tap:
    """A tap that keeps what passes `site` in `bank`, before the taps that follow it change it."""

    def keep(hidden: Tensor, call: Call) -> Tensor:
        bank[site] = hidden
        return hidden

    return Tap(site, keep, skip=site in DOWN)


class _CompleteError(Exception):
    """Ends a write pass."""


def write(port: Port, call: Call, bank: Bank, taps: Sequence[AnyTap], others: Sequence[AnyTap] = ()) -> None:
    """Run a bare pass until each of these recording taps has put its site into `bank`; the rest of the UNet would
    compute what nobody reads. `others` act in the pass too, at each site after the recording."""
    sites = {tap.site for tap in taps}

    def then_look(record: Callable) -> Callable:
        def act(*given: Any) -> Tensor:
            result = record(*given)
            if sites <= bank.keys():
                raise _CompleteError
            return result

        return act

    ending = [
        replace(tap, function=then_look(tap.function))
        if isinstance(tap, Tap)
        else replace(tap, context=then_look(tap.context))
        for tap in taps
    ]
    with suppress(_CompleteError):
        port.run(call, [*ending, *others])

"""How functions are put at the sites of a running UNet, whoever runs it.

A `Port` knows one kind of UNet. It attaches taps for the length of one sampling and can run a bare pass of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

DOWN = ("down.0", "down.1", "down.2", "down.3")
MID = "mid"
UP = ("up.0", "up.1", "up.2", "up.3")
SITES = (*DOWN, MID, *UP)


@dataclass(frozen=True)
class Rows:
    """What each row of a running batch is: whether it carries the negative prompt, and which frame of a video it is."""

    uncond: tuple[bool, ...]
    frame: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.frame:
            object.__setattr__(self, "frame", (0,) * len(self.uncond))

    def __len__(self) -> int:
        return len(self.uncond)


@dataclass(frozen=True)
class Call:
    """One call of a UNet.

    `sample` (n, C, h, w), `timestep` (n,) and `context` (n, tokens, width) are what the UNet was given; `progress` is
    the fraction of the sampling steps that lie behind, in [0, 1].
    """

    sample: Tensor
    timestep: Tensor
    context: Tensor
    rows: Rows
    progress: float = 0.0


@dataclass(frozen=True)
class Tap:
    """A function at a site: `function(hidden (n, C, h, w), call)` returns what takes the place of `hidden`.

    A tap never writes into the tensor it is given. `skip` matters in the encoder only: whether the skip connection
    that leaves at the site carries the change too. At one site taps with `skip` run before those without, and
    otherwise in the order in which they were given.
    """

    site: str
    function: Callable[[Tensor, Call], Tensor]
    skip: bool = False


# What a host says of a call that has just begun: (sample, timestep, context, options) -> Call, or None to leave the
# call alone. `options` is what else the call carries: Forge's transformer_options, empty elsewhere.
Describe = Callable[[Tensor, Tensor, Tensor, Mapping[str, Any]], "Call | None"]
Begin = Callable[[Call], None]


class Port(ABC):
    """The sites of one UNet."""

    in_channels: int  # 4; 9 for inpainting checkpoints

    @abstractmethod
    def attach(
        self, taps: Sequence[Tap], describe: Describe, begin: Begin | None = None
    ) -> AbstractContextManager[None]:
        """Attach `taps` to every call of the UNet until the context is left, by whatever way.

        `describe(sample, timestep, context, options)` is asked once a call, before the UNet runs; then `begin(call)`,
        which may run bare passes. Outside the context the UNet is what it was.
        """

    @abstractmethod
    def run(self, call: Call, taps: Sequence[Tap] = ()) -> Tensor:
        """Run one bare pass with these taps alone. Returns the UNet's output (n, C, h, w).

        It may run inside another call: taps attached to that one stay silent.
        """

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype: ...

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

"""How functions are put at the sites of a running UNet, whoever runs it.

A `Port` knows one kind of UNet. It attaches taps for the length of one sampling and can run a bare pass of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

DOWN = ("down.0", "down.1", "down.2", "down.3")
MID = "mid"
UP = ("up.0", "up.1", "up.2", "up.3")
SITES = (*DOWN, MID, *UP)
BLOCKS = tuple(f"block.{k}" for k in range(25))  # outputs of 12 input blocks, the middle block, 12 output blocks
SELF_ATTENTION = tuple(f"self_attention.{k}" for k in range(16))  # in order of execution
TEMPORAL = tuple(f"temporal.{k}" for k in range(21))  # after each resnet and its attention, in order; 8: the middle's
TIME_EMBEDDING = "time_embedding"  # what the embedding of the timestep (n, width) becomes before the blocks get it
CROSS_ATTENTION = tuple(f"cross_attention.{k}" for k in range(16))


Selection = slice | list[int]
"""Some rows of a batch."""


@dataclass(frozen=True)
class Rows:
    """What each row of a running batch is: whether it carries the negative prompt, which frame of a video and which
    picture of the host's batch it is."""

    uncond: tuple[bool, ...]
    frame: tuple[int, ...] = ()
    picture: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("frame", "picture"):
            if not getattr(self, name):
                object.__setattr__(self, name, (0,) * len(self.uncond))

    def __len__(self) -> int:
        return len(self.uncond)

    def chosen(self, rows: Sequence[int]) -> Rows:
        """These rows alone."""
        return Rows(
            tuple(self.uncond[row] for row in rows),
            tuple(self.frame[row] for row in rows),
            tuple(self.picture[row] for row in rows),
        )


@dataclass(frozen=True)
class Call:
    """One call of a UNet.

    `sample` (n, C, h, w), `timestep` (n,) and `context` (n, tokens, width) are what the UNet was given; `progress` is
    the fraction of the sampling steps that lie behind, in [0, 1]. `room()` is how many rows may ride behind these (see
    Begin), and `first` the place of its first row in the UNet's batch: not 0 for what rides.
    """

    sample: Tensor
    timestep: Tensor
    context: Tensor
    rows: Rows
    progress: float = 0.0
    room: Callable[[], int] = lambda: 0
    first: int = 0

    @property
    def places(self) -> slice:
        """Its rows in the UNet's batch."""
        return slice(self.first, self.first + len(self.rows))


@dataclass(frozen=True)
class Tap:
    """A function at a site: `function(hidden (n, C, h, w), call)` returns what takes the place of `hidden`.
    At TIME_EMBEDDING, `hidden` is (n, width).

    A tap never writes into the tensor it is given. `skip` matters in the encoder only: whether the skip connection
    that leaves at the site carries the change too; at the sites of BLOCKS it always does. Where sites coincide, taps
    at BLOCKS run first, then those with `skip`, and otherwise they run in the order in which they were given. `riding`
    taps are for the rows that ride, and only for them.
    """

    site: str
    function: Callable[[Tensor, Call], Tensor]
    skip: bool = False
    riding: bool = False


Parts = tuple[Tensor, ...]
"""What an attention layer looks at together, each (n or 1, s, width)."""


@dataclass(frozen=True)
class Attended:
    """An attention layer that has just been evaluated.

    `x` (n, t, C) attended to what the tap's `context` made of `parts`, and gave `output` (n, t, C).
    `attend(parts, rows)` is what these rows of `x` see in `parts`, by whatever optimised attention is in use; no tap
    and no hook sees it.
    """

    x: Tensor
    parts: Parts
    output: Tensor
    attend: Attend


class Attend(Protocol):
    def __call__(self, parts: Parts, rows: Selection = slice(None), /) -> Tensor: ...


@dataclass(frozen=True)
class AttentionTap:
    """Functions at a site of SELF_ATTENTION or CROSS_ATTENTION.

    `context(x (n, t, C), parts, call)` returns what the layer attends to in place of `parts`, which in self-attention
    are `x` alone. `output(attended, call)` returns what takes the place of the layer's output. Taps at one site nest:
    each is given the parts that the taps before it made, and the output that the taps after it made. `riding` taps see
    the rows that ride, before the others see theirs, and change nothing.
    """

    site: str
    context: Callable[[Tensor, Parts, Call], Parts]
    output: Callable[[Attended, Call], Tensor] | None = None
    riding: bool = False


AnyTap = Tap | AttentionTap


def in_order(taps: Sequence[Tap]) -> list[Tap]:
    """Taps in the order in which they run where sites coincide."""
    return sorted(taps, key=lambda tap: (tap.site not in BLOCKS, not tap.skip))  # stable: else as given


# What a host says of a call that has just begun: (sample, timestep, context, options) -> Call, or None to leave the
# call alone. `options` is what else the call carries: Forge's transformer_options, empty elsewhere.
Describe = Callable[[Tensor, Tensor, Tensor, Mapping[str, Any]], "Call | None"]

Begin = Callable[[Call], "Call | None"]
"""What readies the taps for a call that has just begun; it may run bare passes. Rows that it returns ride: the UNet
computes them behind the call's own, as many as the call has `room` for and of the same sizes, and nobody but `riding`
taps sees them. A call of few pixels costs little more for them, much less than a pass of their own. It raises
LeftAloneError where the call shall go on without the taps."""


class LeftAloneError(Exception):
    """A call is to be left alone."""


class Port(ABC):
    """The sites of one UNet."""

    in_channels: int  # 4; 9 for inpainting checkpoints
    widths: tuple[int, ...]  # channels of each level, the finest first; 320, 640, 1280, 1280 in SD1.5

    @abstractmethod
    def attach(
        self, taps: Sequence[AnyTap], describe: Describe, begin: Begin | None = None
    ) -> AbstractContextManager[None]:
        """Attach `taps` to every call of the UNet until the context is left, by whatever way.

        `describe(sample, timestep, context, options)` is asked once a call, before the UNet runs; then `begin(call)`.
        Outside the context the UNet is what it was.
        """

    def channels(self, site: str) -> int:
        """How many channels pass DOWN, MID and UP. What enters a decoder level comes from the level below."""
        if site in UP:
            return self.widths[min(4 - UP.index(site), 3)]
        return self.widths[DOWN.index(site)] if site in DOWN else self.widths[3]

    @abstractmethod
    def run(self, call: Call, taps: Sequence[AnyTap] = ()) -> Tensor:
        """Run one bare pass with these taps alone. Returns the UNet's output (n, C, h, w).

        It may run inside another call: taps attached to that one stay silent.
        """

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype: ...

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

"""Write passes while sampling: which rows of a reference are written, at which noise level, and when again.

Where the call that reads has room, what is written rides in it: a bank fills while it is read, site by site.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Literal

import torch
from torch import Tensor

from lib_hellomeme.sampling.fidelity import row_shares
from lib_hellomeme.sampling.noising import noised
from lib_hellomeme.taps.attention import Look, Merge, read
from lib_hellomeme.taps.bank import Bank, write
from lib_hellomeme.unet.port import SELF_ATTENTION, AnyTap, Call, Port, Rows, Tap

KEPT_PASSES = 4  # write passes remembered: split batches, alternating prompts

Noise = Callable[[Call, int], Tensor]
"""The noise (1, 4, h, w) of one row of a call. Rows of the same picture, with or against the prompt, take the same."""


@dataclass(frozen=True)
class Writing:
    """How a reference is written.

    latents: "noised" to the noise level of the call, "clean" but at its timestep, or "once" at timestep 0.
    every: write anew at every n-th timestep only; between, rows read what was written before.
    context (1, tokens, width): the prompt that one written row, shared by all that read the same latents, is given;
    None: as many rows as the call has, each with its own prompt. A prompt of the writing's own keeps results
    independent of how rows are split over calls.
    """

    latents: Literal["noised", "clean", "once"] = "noised"
    every: int = 1
    context: Tensor | None = None


@dataclass(frozen=True)
class _Written:
    """What one write pass left, and of which rows."""

    timestep_count: int
    keys: list[tuple]
    context: Tensor
    bank: Bank
    sites: set[str]  # that the bank holds in the end


@dataclass(frozen=True)
class Features:
    """What a bank holds for the rows of a call."""

    bank: Bank
    chosen: list[int] | None = None  # which of the bank's rows; None for all, or the one for everybody

    def at(self, site: str) -> Tensor:
        """(n or 1, ...), once the site has been written."""
        return self.bank[site] if self.chosen is None else self.bank[site][self.chosen]


class Aboard:
    """What rides in a call, from several writers."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self._calls: list[Call] = []
        self._taps: list[dict[str, AnyTap]] = []

    def take(self, writing: Call, taps: Sequence[AnyTap]) -> bool:
        """Let a write pass ride, if it fits."""
        free = self._room - sum(len(call.rows) for call in self._calls)
        context = _as_long(writing.context, self.call.context)
        if len(writing.rows) > free or writing.sample.shape[1:] != self.call.sample.shape[1:] or context is None:
            return False
        self._calls.append(replace(writing, context=context))
        self._taps.append({tap.site: tap for tap in taps})
        return True

    @cached_property
    def _room(self) -> int:
        return self.call.room()

    def riders(self) -> Call | None:
        """All of it as one call."""
        if not self._calls:
            return None
        first, rows = self._calls[0], [call.rows for call in self._calls]
        return replace(
            first,
            sample=torch.cat([call.sample for call in self._calls]),
            timestep=torch.cat([call.timestep for call in self._calls]),
            context=torch.cat([call.context for call in self._calls]),
            rows=Rows(
                *(tuple(chain(*parts)) for parts in zip(*((r.uncond, r.frame, r.picture) for r in rows), strict=True))
            ),
        )

    def record(self, site: str, features: Tensor) -> None:
        """What has come to a site, (rows of all riders, ...)."""
        parts = features.split([len(call.rows) for call in self._calls])
        for own, call, taps in zip(parts, self._calls, self._taps, strict=True):
            tap = taps.get(site)
            if isinstance(tap, Tap):
                tap.function(own, call)
            elif tap is not None:
                tap.context(own, (own,), call)


class Writer:
    """What one reference leaves in a UNet.

    port: the UNet that writes. reference (1, 4, h, w): scaled latents of any size. taps: those that fill a bank.
    noise and alphas_cumprod (steps of the schedule,) are needed where latents are noised.
    """

    def __init__(
        self,
        port: Port,
        reference: Tensor,
        taps: Callable[[Bank], Sequence[AnyTap]],
        writing: Writing,
        noise: Noise | None = None,
        alphas_cumprod: Tensor | None = None,
    ) -> None:
        self.port = port
        self.reference = reference
        self.taps = taps
        self.writing = writing
        self.noise = noise
        self.alphas_cumprod = alphas_cumprod
        self._written: list[_Written] = []
        self._timestep: float | None = None
        self._timestep_count = 0

    def features(self, call: Call, needed: Sequence[bool], aboard: Aboard | None = None) -> Features:
        """What the rows of a call read, from an earlier pass or a new one, which goes `aboard` where it can.

        Rows not `needed` are not written; what stands in their place means nothing.
        """
        self._count(float(call.timestep[0]))
        self._written = [written for written in self._written if self._fresh(written)]
        rows = [row for row, need in enumerate(needed) if need]
        keys = [self._key(call, row) for row in rows]
        shared = self.writing.context
        context = call.context[rows] if shared is None else shared.to(call.context).expand(len(rows), -1, -1)
        for written in self._written:
            index = _find(keys, context, written.keys, written.context)
            if None not in index:
                break
        else:
            written = self._write(call, rows, keys, context, aboard)
            self._written = [written, *self._written][:KEPT_PASSES]
            index = _find(keys, context, written.keys, written.context)
        if len(written.keys) == 1:
            return Features(written.bank)
        place = dict(zip(rows, index, strict=True))
        chosen = [place.get(row) or 0 for row in range(len(call.rows))]
        return Features(written.bank, None if chosen == list(range(len(written.keys))) else chosen)

    def _count(self, timestep: float) -> None:
        if timestep != self._timestep:
            self._timestep = timestep
            self._timestep_count += 1

    def _fresh(self, written: _Written) -> bool:
        if not written.sites <= written.bank.keys():  # the call that it rode in broke off
            return False
        age = self._timestep_count - written.timestep_count
        return age < self.writing.every or self.writing.latents == "once"

    def _key(self, call: Call, row: int) -> tuple:
        """What tells apart rows that see different latents: rows that share a prompt share their noise too."""
        if self.writing.latents != "noised":
            return ()
        picture = call.rows.picture[row]
        return (picture, call.rows.uncond[row]) if self.writing.context is None else (picture,)

    def _write(
        self, call: Call, rows: list[int], keys: list[tuple], context: Tensor, aboard: Aboard | None
    ) -> _Written:
        """The write pass, over the distinct ones of these rows."""
        first = sorted({index for index in _find(keys, context, keys, context) if index is not None})
        rows, keys, context = [rows[i] for i in first], [keys[i] for i in first], context[first]
        timestep = call.timestep[rows]
        latents = self._latents(call, rows, timestep).to(call.sample)
        if self.writing.latents == "once":
            timestep = torch.zeros_like(timestep)
        bank: Bank = {}
        taps = self.taps(bank)
        writing = Call(latents, timestep, context, call.rows.chosen(rows), call.progress)
        if aboard is None or not aboard.take(writing, taps):
            write(self.port, writing, bank, taps)
        return _Written(self._timestep_count, keys, context, bank, {tap.site for tap in taps})

    def _latents(self, call: Call, rows: list[int], timestep: Tensor) -> Tensor:
        """What the write pass is given, (rows, channels of the UNet, h, w)."""
        clean = latents = self.reference.to(call.sample.device).expand(len(rows), -1, -1, -1)
        if self.writing.latents == "noised":
            assert self.noise is not None
            assert self.alphas_cumprod is not None
            noise = torch.cat([self.noise(call, row) for row in rows])
            latents = noised(clean, noise, self.alphas_cumprod, timestep)
        if self.port.in_channels == 9:  # inpainting checkpoints: a mask that hides nothing, and what it shows
            latents = torch.cat([latents, torch.zeros_like(clean[:, :1]), clean], dim=1)
        return latents


class BankReader:
    """Self-attention that reads what references left. Attach with `port.attach(r.taps(), describe, r.begin)`.

    Uncond rows go by it by 1 − fidelity; by default they read nothing.
    """

    def __init__(self, writers: Sequence[Writer], merge: Merge = "concat", fidelity: float = 1.0) -> None:
        self.writers = writers
        self.merge: Merge = merge
        self.fidelity = fidelity
        self._looks: dict[str, list[Look]] = {}

    def taps(self) -> list[AnyTap]:
        return [read(site, lambda call, site=site: self._looks.get(site, ()), self.merge) for site in SELF_ATTENTION]

    def begin(self, call: Call) -> None:
        share = row_shares(call.rows, self.fidelity)
        self._looks = {}
        if any(share):
            wrote = [writer.features(call, [value > 0 for value in share]) for writer in self.writers]
            self._looks = {
                site: [Look(joined([features.at(site) for features in wrote]), share)] for site in wrote[0].bank
            }


def _as_long(context: Tensor, other: Tensor) -> Tensor | None:
    """A prompt (n, tokens, width) with the other's number of tokens, None where that cannot be: attention to tokens
    that are all there several times is the same."""
    times, rest = divmod(other.shape[1], context.shape[1])
    return None if rest or context.shape[2:] != other.shape[2:] else context.repeat(1, times, 1)


def joined(tokens: Sequence[Tensor]) -> Tensor:
    """Tokens of several banks (n or 1, t, C), to compete for one attention."""
    rows = max(len(each) for each in tokens)
    return torch.cat([each.expand(rows, -1, -1) for each in tokens], dim=1) if len(tokens) > 1 else tokens[0]


def _find(keys: Sequence[tuple], context: Tensor, others: Sequence[tuple], other_context: Tensor) -> list[int | None]:
    """For each row the first of the others with the same key and the same prompt, None where there is none."""
    if context.shape[1:] != other_context.shape[1:]:
        return [None] * len(keys)
    same_prompt = (context[:, None] == other_context[None]).flatten(2).all(-1).tolist()  # (n, k)
    return [
        next((i for i, other in enumerate(others) if other == key and same[i]), None)
        for key, same in zip(keys, same_prompt, strict=True)
    ]

"""W and R: attention layers that write banks and read them.

    plain  = A(x, context)
    concat:  read = A(x, [context; tokens])      out = plain + Σ share · (read − plain)
    replace: read = A(x, tokens)                 out = plain + Σ share · (read − plain)
    sum:     read = A(x, tokens)                 out = plain + Σ share · read

`share` is the row policy and everything else that goes by degrees: 0 in rows that read nothing, 1 − style fidelity in
uncond rows, 1 where a bank is read outright, anything between to interpolate. The layer itself computes every A, by
whatever optimised attention is in use; a bank is only tokens appended to its context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lib_hellomeme.taps.bank import Bank
from lib_hellomeme.taps.masks import per_row, selection, shares, token_grid
from lib_hellomeme.unet.port import Attended, AttentionTap, Call, Parts

Merge = Literal["concat", "replace", "sum"]


@dataclass(frozen=True)
class Look:
    """Tokens (n or 1, t, C) to look at, how far each row goes by them, and where in the picture: `where` (1, 1, h, w)
    in [0, 1], None for everywhere."""

    tokens: Tensor
    share: tuple[float, ...]
    where: Tensor | None = None


def record_tokens(site: str, bank: Bank, keep: Callable[[Tensor, Call], Tensor] | None = None) -> AttentionTap:
    """A tap that puts into `bank` what the layer at `site` is given, or what `keep(tokens, call)` makes of it."""

    def record(x: Tensor, parts: Parts, call: Call) -> Parts:
        bank[site] = parts[0] if keep is None else keep(parts[0], call)
        return parts

    return AttentionTap(site, record)


def read(site: str, looks: Callable[[Call], Sequence[Look]], merge: Merge = "concat") -> AttentionTap:
    """A tap that reads `looks(call)` by the formulas above.

    The first look costs no evaluation of its own; each other one does, and so do, in the rows concerned, shares
    below 1. What shall compete for the same attention must stand in one look.
    """

    def active(call: Call) -> list[Look]:
        return [look for look in looks(call) if any(look.share)]

    def context(x: Tensor, parts: Parts, call: Call) -> Parts:
        given = active(call)
        return _joined(parts, given[0], merge) if given and merge != "sum" else parts

    def output(attended: Attended, call: Call) -> Tensor:
        given = active(call)
        if not given:
            return attended.output
        return _summed(attended, given, call) if merge == "sum" else _mixed(attended, given, call, merge)

    return AttentionTap(site, context, output)


def _joined(parts: Parts, look: Look, merge: Merge) -> Parts:
    tokens = look.tokens.to(parts[0])
    return (tokens,) if merge == "replace" else (*parts, tokens)


def _weight(look: Look, output: Tensor, call: Call) -> Tensor:
    """The share of `look` at each row and token, broadcast over output (n, t, C)."""
    share = per_row(look.share, output)
    if look.where is None:
        return share
    grid = token_grid(output.shape[1], *call.sample.shape[-2:])
    return share * shares(look.where, *grid).reshape(1, -1, 1).to(output)


def _mixed(attended: Attended, looks: Sequence[Look], call: Call, merge: Merge) -> Tensor:
    first, *others = looks
    alone = not others and first.where is None
    needs_plain = [share < 1 or not alone for share in first.share]
    if not any(needs_plain):
        return attended.output
    rows = selection(needs_plain)
    plain = attended.attend(attended.parts, rows)
    mixed = plain + _weight(first, attended.output, call)[rows] * (attended.output[rows] - plain)
    for look in others:
        read = attended.attend(_joined(attended.parts, look, merge))
        mixed = mixed + _weight(look, read, call) * (read - plain)
    output = attended.output.clone()
    output[rows] = mixed
    return output


def _summed(attended: Attended, looks: Sequence[Look], call: Call) -> Tensor:
    output = attended.output.clone()
    for look in looks:
        rows = selection([share > 0 for share in look.share])
        read = attended.attend((look.tokens.to(attended.x),), rows)
        output[rows] += _weight(look, output, call)[rows] * read
    return output

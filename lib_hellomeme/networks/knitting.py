"""Spatial knitting attention (HelloMeme, arXiv 2410.22901): attention along the rows, then along the columns.

A reference is knitted in by letting every line of the hidden map go on into the same line of the reference map.
Maps are (n, h, w, C) here; a "line" is a row of w tokens in the first attention, a column of h tokens in the second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib_hellomeme.networks.attention import Attention
from lib_hellomeme.networks.convolutions import Projection
from lib_hellomeme.networks.positional import stacked_positions


@dataclass(frozen=True)
class Prepared:
    """What one knitted layer reads of its reference: keys and values of the reference half of both attentions.

    Each is (rows, lines, length, C), one entry a reference row.
    """

    row_keys: Tensor
    row_values: Tensor
    column_keys: Tensor
    column_values: Tensor

    def rows(self, index: Tensor) -> Prepared:
        """The rows named by a LongTensor, in its order."""
        return self._map(lambda tensor: tensor[index.to(tensor.device)])

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Prepared:
        return self._map(lambda tensor: tensor.to(device=device, dtype=dtype))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Prepared:
        return Prepared(
            change(self.row_keys), change(self.row_values), change(self.column_keys), change(self.column_values)
        )


@dataclass(frozen=True)
class Knit:
    """The learned parts of one knitting attention; `positions(length)` gives a table (length, C)."""

    rows: Attention
    columns: Attention
    norm: nn.LayerNorm
    positions: Callable[[int], Tensor]

    def plain(self, hidden: Tensor, reference: Tensor | None = None) -> Tensor:
        """The figure of the paper: hidden (n, h, w, C) and reference (n, h, w, C) to (n, h, w, C)."""
        woven = self._plain_lines(self.rows, hidden, reference)  # n h w C
        reference = None if reference is None else reference.transpose(1, 2)  # n w h C
        return self._plain_lines(self.columns, woven.transpose(1, 2), reference).transpose(1, 2)  # n h w C

    def prepare(self, reference: Tensor) -> Prepared:
        """Everything that depends on the reference (rows, h, w, C) alone."""
        return Prepared(
            *self._prepare_lines(self.rows, reference), *self._prepare_lines(self.columns, reference.transpose(1, 2))
        )

    def read(self, hidden: Tensor, prepared: Prepared) -> Tensor:
        """`plain` with a prepared reference, before the last output projection: only hidden tokens are projected."""
        woven = self._read_lines(self.rows, hidden, prepared.row_keys, prepared.row_values)
        columns = self.rows.output(woven).transpose(1, 2)  # n w h C
        return self._read_lines(self.columns, columns, prepared.column_keys, prepared.column_values).transpose(1, 2)

    def _plain_lines(self, attention: Attention, lines: Tensor, reference: Tensor | None) -> Tensor:
        length = lines.shape[2]
        if reference is not None:
            lines = torch.cat([lines, reference], dim=2)  # n lines 2*length C
        return attention(self.norm(lines + self.positions(lines.shape[2])))[:, :, :length]

    def _prepare_lines(self, attention: Attention, reference: Tensor) -> tuple[Tensor, Tensor]:
        length = reference.shape[2]
        tokens = self.norm(reference + self.positions(2 * length)[length:])
        return attention.to_k(tokens), attention.to_v(tokens)

    def _read_lines(self, attention: Attention, lines: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        tokens = self.norm(lines + self.positions(lines.shape[2]))  # n lines length C
        return attention.mix(
            attention.to_q(tokens),
            _continue_lines(attention.to_k(tokens), keys),
            _continue_lines(attention.to_v(tokens), values),
        )


def _continue_lines(hidden: Tensor, reference: Tensor) -> Tensor:
    """Let each line of hidden (n, lines, length, C) go on into that of reference (rows, ...), rows dividing n."""
    n, lines, length, width = hidden.shape
    rows = reference.shape[0]
    if n % rows or reference.shape[1:] != hidden.shape[1:]:
        raise ValueError(f"a reference of {tuple(reference.shape)} cannot be read by features of {tuple(hidden.shape)}")
    shared = reference[:, None].expand(rows, n // rows, lines, length, width)
    joined = torch.cat([hidden.view(rows, n // rows, lines, length, width), shared], dim=3)
    return joined.view(n, lines, 2 * length, width)


class STKAttention(nn.Module):
    """Knitting attention between two convolutions, the building block of v5b, v5c and of v5's control projection."""

    def __init__(self, channels: int, width: int, heads: int = 8) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, width, kernel_size=3, padding=1)
        self.attnx = Attention(width, heads)
        self.attny = Attention(width, heads)
        self.norm = nn.LayerNorm(width)
        self.proj = Projection(width, channels)

    def forward(self, hidden: Tensor, reference: Tensor | None = None) -> Tensor:
        """hidden and reference (n, channels, h, w) to (n, channels, h, w), nothing added."""
        tokens = self._tokens(hidden)  # n h w C
        tokens = self._knit.plain(tokens, None if reference is None else self._tokens(reference))
        return self.proj(tokens.permute(0, 3, 1, 2))

    def prepare(self, reference: Tensor) -> Prepared:
        """reference (rows, channels, h, w)."""
        return self._knit.prepare(self._tokens(reference))

    def read(self, hidden: Tensor, prepared: Prepared) -> Tensor:
        """hidden (n, channels, h, w) to (n, channels, h, w), nothing added."""
        return self.proj.after(self.attny.output, self._knit.read(self._tokens(hidden), prepared))

    def fold(self) -> None:
        """See Projection.fold."""
        self.proj.fold(self.attny.output)

    @property
    def _knit(self) -> Knit:
        weight = self.norm.weight
        return Knit(
            self.attnx,
            self.attny,
            self.norm,
            lambda length: stacked_positions(length, weight.shape[0], weight.dtype, weight.device),
        )

    def _tokens(self, channels_first: Tensor) -> Tensor:
        return self.conv_in(channels_first).permute(0, 2, 3, 1)

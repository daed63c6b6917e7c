"""Multi-head attention under diffusers' tensor names."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Queries from one sequence, keys and values from the same or another one, then an output projection.

    Leading axes are batch axes; the last two are (tokens, width).
    """

    def __init__(self, width: int, heads: int, context_width: int | None = None, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k = nn.Linear(context_width or width, width, bias=bias)
        self.to_v = nn.Linear(context_width or width, width, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    @property
    def output(self) -> nn.Linear:
        return cast(nn.Linear, self.to_out[0])

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        """tokens (..., n, width), context (..., m, context width; default: the tokens) to (..., n, width)."""
        context = tokens if context is None else context
        return self.attend(self.to_q(tokens), self.to_k(context), self.to_v(context))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The rest, from projected queries (..., n, width), keys and values (..., m, width)."""
        return self.output(self.mix(query, key, value))

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`attend` without the output projection."""
        mixed = F.scaled_dot_product_attention(self._split(query), self._split(key), self._split(value))
        return mixed.transpose(1, 2).reshape(query.shape)

    def _split(self, projected: Tensor) -> Tensor:
        tokens, width = projected.shape[-2:]
        return projected.reshape(-1, tokens, self.heads, width // self.heads).transpose(1, 2)  # batch heads tokens d

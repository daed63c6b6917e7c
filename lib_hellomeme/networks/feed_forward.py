"""The small perceptrons of the networks, under diffusers' tensor names."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class GEGLU(nn.Module):
    """x, gate = W z + b; x * gelu(gate) ("GLU Variants Improve Transformer")."""

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, inner_width * 2)

    def forward(self, tokens: Tensor) -> Tensor:
        value, gate = self.proj(tokens).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """width to `inner_width`, gated, and back."""

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        # The place of the published dropout is kept: the second layer is named net.2.
        self.net = nn.Sequential(GEGLU(width, inner_width), nn.Identity(), nn.Linear(inner_width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.net(tokens)


class TimestepEmbedding(nn.Module):
    """linear, SiLU, linear."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, out_width)
        self.linear_2 = nn.Linear(out_width, out_width)

    def forward(self, values: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(values)))

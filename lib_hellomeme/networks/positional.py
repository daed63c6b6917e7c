"""Sinusoidal tables and embeddings, in the three orders that the published networks use.

All are computed in float32 and only then cast: half precision cannot hold the arguments of the sines.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn


def timestep_embedding(values: Tensor, width: int) -> Tensor:
    """Embed every number as `width` cosines and sines: (...) to (..., width), float32.

    Frequencies 10000^(-i / (width / 2)), cosines first, as in "Denoising Diffusion Probabilistic Models".
    """
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, device=values.device, dtype=torch.float32) / half)
    angles = values.float()[..., None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


@lru_cache(maxsize=128)
def stacked_positions(length: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The positional table (length, width) of v5 and later: all sines, then all cosines."""
    # A table made in inference mode could not be used in training afterwards.
    with torch.inference_mode(False):
        frequencies = 1.0 / 10000 ** (torch.arange(width // 2, dtype=torch.float32, device="cpu") / (width / 2))
        angles = torch.outer(torch.arange(length, dtype=torch.float32, device="cpu"), frequencies)
        return torch.cat([angles.sin(), angles.cos()], dim=1).to(device=device, dtype=dtype)


@lru_cache(maxsize=128)
def interleaved_positions(length: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The positional table (length, width) of "Attention Is All You Need": sine and cosine in turn."""
    with torch.inference_mode(False):
        frequencies = torch.exp(torch.arange(0, width, 2, device="cpu") * (-math.log(10000.0) / width))
        angles = torch.arange(length, device="cpu")[:, None] * frequencies
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(device=device, dtype=dtype)


class SinusoidalPositionalEmbedding(nn.Module):
    """A positional table that is stored with the weights and goes on by its formula past its stored length."""

    pe: Tensor

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        table = interleaved_positions(length, width, torch.float32, torch.device("cpu"))
        self.register_buffer("pe", table[None].clone())

    def table(self, length: int) -> Tensor:
        """The first `length` positions, (length, width)."""
        stored = self.pe[0, :length]
        if length == stored.shape[0]:
            return stored
        formula = interleaved_positions(length, stored.shape[1], stored.dtype, stored.device)
        return torch.cat([stored, formula[stored.shape[0] :]])

"""A reference's latents at the noise level of a step."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def noised(latents: Tensor, noise: Tensor, alphas_cumprod: Tensor, timestep: Tensor) -> Tensor:
    """√ᾱ·latents + √(1−ᾱ)·noise in float32, ᾱ at each row's timestep (n,), rounded half to even.

    latents (1, 4, h, w), noise (n, 4, h, w), alphas_cumprod (steps of the schedule,).
    """
    index = timestep.float().round().long().clamp(0, len(alphas_cumprod) - 1)
    alpha = alphas_cumprod.to(latents.device, torch.float32)[index.to(latents.device)].reshape(-1, 1, 1, 1)
    return alpha.sqrt() * latents.float() + (1 - alpha).sqrt() * noise.to(latents.device, torch.float32)


def seeded_noise(shape: Sequence[int], *key: object) -> Tensor:
    """Standard normal numbers on the CPU that `key` alone decides, on every device and whatever was drawn before."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest, "little") >> 1)
    return torch.randn(tuple(shape), generator=generator)

"""What training and validation need of SD1.5's diffusion: noise by timestep, the loss, and a sampler."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

STEPS = 1000
SNR_LIMIT = 5.0


@cache
def signal_power() -> Tensor:
    """(1000,) the share of the latents' power in the noised ones: betas linear in their roots (SD1.5)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


def add_noise(latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """latents, noise (n, 4, h, w), timestep (n,): Ho et al. (2020), equation 4."""
    power = signal_power().to(latents.device)[timestep][:, None, None, None]
    return power.sqrt() * latents + (1 - power).sqrt() * noise


def noise_loss(predicted: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """Mean square error, weighted min(SNR, 5) / SNR (Hang et al. 2023, min-SNR)."""
    power = signal_power().to(noise.device)[timestep]
    ratio = power / (1 - power)
    weight = ratio.clamp(max=SNR_LIMIT) / ratio
    return (weight * F.mse_loss(predicted.float(), noise, reduction="none").mean(dim=(1, 2, 3))).mean()


@torch.no_grad()
def ddim(predict: Callable[[Tensor, Tensor], Tensor], latents: Tensor, steps: int) -> Tensor:
    """From noise (n, 4, h, w) to latents; predict(latents, timestep (n,)) is the noise. Song et al. (2021), eq. 12."""
    timesteps = torch.linspace(STEPS - 1, 0, steps + 1).round().long()
    power = signal_power().to(latents.device)
    for now, following in zip(timesteps[:-1].tolist(), timesteps[1:].tolist(), strict=True):
        noise = predict(latents, torch.full((len(latents),), now, device=latents.device))
        clean = (latents - (1 - power[now]).sqrt() * noise) / power[now].sqrt()
        latents = power[following].sqrt() * clean + (1 - power[following]).sqrt() * noise
    return latents


def guided(both: Tensor, scale: float) -> Tensor:
    """Rows [uncond..., cond...] to half as many (Ho, Salimans 2022)."""
    uncond, cond = both.float().chunk(2)
    return uncond + scale * (cond - uncond)


def seeded(*numbers: int) -> torch.Generator:
    """A generator on the CPU that depends on these numbers alone."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))

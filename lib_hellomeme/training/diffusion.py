"""What training and validation need of SD1.5's diffusion: noise by timestep, the loss, and a sampler."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

STEPS = 1000


@cache
def signal_power() -> Tensor:
    """(1000,) the share of the latents' power in the noised ones: betas linear in their roots (SD1.5)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


def add_noise(latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """latents, noise (n, 4, h, w), timestep (n,): Ho et al. (2020), equation 4."""
    power = _power(latents, timestep)
    return power.sqrt() * latents + (1 - power).sqrt() * noise


def velocity(latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """What the world's UNet predicts: sqrt(a) noise - sqrt(1 - a) latents (Salimans, Ho 2022, appendix D).

    At the noisiest timesteps, latents from predicted noise have fifteen times its error. For a small network and a
    short training that is too much: after two minutes the error of these latents was six times that from velocities.
    """
    power = _power(latents, timestep)
    return power.sqrt() * noise - (1 - power).sqrt() * latents


def velocity_loss(
    predicted: Tensor, latents: Tensor, noise: Tensor, timestep: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Mean square error. weight (n, 1, h, w) tells which places matter more."""
    errors = (predicted.float() - velocity(latents, noise, timestep)).square()
    return errors.mean() if weight is None else weighted_mean(errors, weight)


def latents_loss(predicted: Tensor, latents: Tensor, noise: Tensor, timestep: Tensor, weight: Tensor) -> Tensor:
    """The same of the latents that follow from predicted velocities: sqrt(a) noised - sqrt(1 - a) velocity."""
    errors = (predicted.float() - velocity(latents, noise, timestep)).square()
    return weighted_mean((1 - _power(latents, timestep)) * errors, weight)


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """values (n, 4, h, w), weight (n, 1, h, w)."""
    return (weight * values).mean() / weight.mean()


@torch.no_grad()
def ddim(predict: Callable[[Tensor, Tensor], Tensor], latents: Tensor, steps: int) -> Tensor:
    """From noise (n, 4, h, w) to latents. predict(latents, timestep (n,)) is the velocity. Song et al. (2021), equation
    12."""
    timesteps = torch.linspace(STEPS - 1, 0, steps + 1).round().long()
    power = signal_power().to(latents.device)
    for now, following in zip(timesteps[:-1].tolist(), timesteps[1:].tolist(), strict=True):
        predicted = predict(latents, torch.full((len(latents),), now, device=latents.device))
        clean = power[now].sqrt() * latents - (1 - power[now]).sqrt() * predicted
        noise = (1 - power[now]).sqrt() * latents + power[now].sqrt() * predicted
        latents = power[following].sqrt() * clean + (1 - power[following]).sqrt() * noise
    return latents


def guided(both: Tensor, scale: float) -> Tensor:
    """Rows [uncond..., cond...] to half as many (Ho, Salimans 2022)."""
    uncond, cond = both.float().chunk(2)
    return uncond + scale * (cond - uncond)


def seeded(*numbers: int) -> torch.Generator:
    """A generator on the CPU that depends on these numbers alone."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))


def _power(latents: Tensor, timestep: Tensor) -> Tensor:
    """(n, 1, 1, 1)"""
    return signal_power().to(latents.device)[timestep][:, None, None, None]

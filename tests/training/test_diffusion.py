"""The noise of training is the noise that the hosts' samplers take away."""

from __future__ import annotations

import torch

from lib_hellomeme.standalone.samplers import trained_sigmas
from lib_hellomeme.training.base import random_timesteps
from lib_hellomeme.training.diffusion import STEPS, add_noise, ddim, guided, noise_loss, seeded, signal_power


def test_noise_levels_are_the_samplers() -> None:
    power = signal_power()
    torch.testing.assert_close(((1 - power) / power).sqrt(), trained_sigmas(), rtol=1e-4, atol=1e-6)


def test_ddim_finds_the_latents_that_the_noise_hides() -> None:
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=seeded(1))

    def predict(noised: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        power = signal_power()[timestep][:, None, None, None]
        return (noised - power.sqrt() * latents) / (1 - power).sqrt()

    start = add_noise(latents, noise, torch.full((2,), STEPS - 1))
    found = ddim(predict, start, 10)
    last = signal_power()[0]
    torch.testing.assert_close((found - (1 - last).sqrt() * noise) / last.sqrt(), latents, rtol=0, atol=1e-3)


def test_loss_is_nothing_for_the_right_noise_and_weighs_late_steps_less() -> None:
    noise = torch.randn(2, 4, 8, 8, generator=seeded(2))
    early, late = torch.tensor([900, 900]), torch.tensor([5, 5])
    assert noise_loss(noise, noise, early) == 0
    assert noise_loss(noise + 1, noise, early).item() > 0.99
    assert noise_loss(noise + 1, noise, late).item() < 0.05


def test_guidance() -> None:
    both = torch.tensor([1.0, 2.0])[:, None, None, None]
    assert guided(both, 3.0).item() == 4.0


def test_seeded_draws_depend_on_all_numbers() -> None:
    draws = [torch.randn(1, generator=seeded(*numbers)).item() for numbers in ((1, 2), (1, 2), (1, 3), (2, 2))]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 3


def test_timesteps_cover_the_range_evenly() -> None:
    timesteps = random_timesteps(10, seeded(3))
    assert sorted((timesteps // 100).tolist()) == list(range(10))

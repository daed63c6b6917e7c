"""The noise of training is the noise that the hosts' samplers take away."""

from __future__ import annotations

import pytest
import torch

from lib_hellomeme.standalone.samplers import denoiser_of_velocity, trained_sigmas
from lib_hellomeme.training.base import random_timesteps
from lib_hellomeme.training.diffusion import (
    STEPS,
    add_noise,
    ddim,
    guided,
    latents_loss,
    seeded,
    signal_power,
    velocity,
    velocity_loss,
)


def test_noise_levels_are_the_samplers() -> None:
    power = signal_power()
    torch.testing.assert_close(((1 - power) / power).sqrt(), trained_sigmas(), rtol=1e-4, atol=1e-6)


def test_ddim_finds_the_latents_that_the_noise_hides() -> None:
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=seeded(1))

    def predict(noised: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        power = signal_power()[timestep][:, None, None, None]
        return velocity(latents, (noised - power.sqrt() * latents) / (1 - power).sqrt(), timestep)

    start = add_noise(latents, noise, torch.full((2,), STEPS - 1))
    found = ddim(predict, start, 10)
    last = signal_power()[0]
    torch.testing.assert_close((found - (1 - last).sqrt() * noise) / last.sqrt(), latents, rtol=0, atol=1e-3)


def test_the_samplers_find_latents_and_noise_in_velocities() -> None:
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=seeded(2))
    for timestep in (3, 400, 996):
        each = torch.full((3,), timestep)
        predicted = velocity(latents, noise, each)
        sigma = trained_sigmas()[timestep]
        denoised = denoiser_of_velocity(lambda x, t, predicted=predicted: predicted)(latents + sigma * noise, sigma)
        torch.testing.assert_close(denoised, latents, rtol=0, atol=2e-3)


def test_loss_is_nothing_for_the_right_velocity() -> None:
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=seeded(2))
    timestep = torch.tensor([900, 5])
    right = velocity(latents, noise, timestep)
    assert velocity_loss(right, latents, noise, timestep) == 0
    assert velocity_loss(right + 2, latents, noise, timestep).item() == pytest.approx(4, rel=1e-5)


def test_latents_loss_is_the_error_of_what_follows_from_velocities() -> None:
    latents, noise, wrong = torch.randn(3, 2, 4, 8, 8, generator=seeded(3))
    timestep = torch.tensor([900, 5])
    predicted = velocity(latents, noise, timestep) + wrong
    power = signal_power()[timestep][:, None, None, None]
    found = power.sqrt() * add_noise(latents, noise, timestep) - (1 - power).sqrt() * predicted
    errors = (found - latents).square()
    even, left = torch.ones(2, 1, 8, 8), torch.ones(2, 1, 8, 8)
    left[..., 4:] = 0.0
    for weight, expected in ((even, errors.mean()), (5 * even, errors.mean()), (left, errors[..., :4].mean())):
        loss = latents_loss(predicted, latents, noise, timestep, weight)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_places_of_no_weight_do_not_count() -> None:
    latents, noise, wrong = torch.randn(3, 2, 4, 8, 8, generator=seeded(3))
    timestep = torch.tensor([900, 5])
    predicted = velocity(latents, noise, timestep) + wrong
    even, left = torch.ones(2, 1, 8, 8), torch.ones(2, 1, 8, 8)
    left[..., 4:] = 0.0
    for weight, expected in ((None, wrong), (5 * even, wrong), (left, wrong[..., :4])):
        loss = velocity_loss(predicted, latents, noise, timestep, weight)
        assert loss.item() == pytest.approx(expected.square().mean().item(), rel=1e-4)


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

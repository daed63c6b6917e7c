"""Samplers against distributions whose exact path is known, and schedules against numbers from the webuis' code."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lib_hellomeme.errors import SettingsError
from lib_hellomeme.standalone.samplers import (
    SAMPLERS,
    Sampler,
    ddim_sigmas,
    denoiser,
    dpmpp_2m_sde,
    karras_sigmas,
    sampler_named,
    sigma_of,
    timestep_of,
    trained_sigmas,
    uniform_sigmas,
)

WIDTH = 0.6  # standard deviation of what the network below has learned


def predict(x: Tensor, timestep: Tensor) -> Tensor:
    """The noise that is to be expected in samples of N(0, WIDTH^2), scaled to variance one as SD1.5 wants them."""
    sigma = sigma_of(timestep)
    return x * (sigma**2 + 1) ** 0.5 * sigma / (sigma**2 + WIDTH**2)


def seeded_noise(shape=(1, 4, 64, 64)):
    generator = torch.Generator().manual_seed(5)
    return lambda: torch.randn(shape, generator=generator)


def test_sd15s_noise_levels():
    sigmas = trained_sigmas()
    assert len(sigmas) == 1000
    assert float(sigmas[0]) == pytest.approx(0.029167, abs=2e-6)
    assert float(sigmas[-1]) == pytest.approx(14.614642, abs=1e-5)


def test_schedules_are_the_webuis():
    """Numbers from k-diffusion's get_sigmas and get_sigmas_karras and A1111's get_timesteps."""
    expected = UNIFORM_5, KARRAS_5
    for sigmas, numbers in zip((uniform_sigmas(5), karras_sigmas(5)), expected, strict=True):
        torch.testing.assert_close(sigmas, torch.tensor(numbers), rtol=1e-5, atol=1e-6)
    assert [round(float(timestep_of(sigma))) for sigma in ddim_sigmas(5)] == [801, 601, 401, 201, 1]
    assert len(ddim_sigmas(30)) == 31  # 1000 // 30 = 33 between timesteps


UNIFORM_5 = (14.614643, 4.086081, 1.61558, 0.69515, 0.029168, 0.0)
KARRAS_5 = (14.614643, 4.796544, 1.274105, 0.247952, 0.029168, 0.0)


@given(st.floats(0, 999))
def test_timesteps_and_levels_are_inverse(timestep):
    assert float(timestep_of(sigma_of(torch.tensor(timestep)))) == pytest.approx(timestep, abs=2e-3)


@given(st.floats(1e-4, 1e3))
def test_timesteps_stay_within_the_trained_ones(sigma):
    assert 0 <= float(timestep_of(torch.tensor(sigma))) <= 999


@pytest.mark.parametrize("name", ["Euler", "DPM++ 2M", "DDIM"])
def test_the_exact_path_is_followed(name):
    """For Gaussian data x / sqrt(WIDTH^2 + sigma^2) is constant along the way (probability flow)."""
    sampler = SAMPLERS[name]
    start = seeded_noise()()
    ends = {}
    for steps in (50, 200):
        sigmas = sampler.sigmas(steps)
        first = start * ((sigmas[0] ** 2 + 1) ** 0.5 if sampler.unit_scale else sigmas[0])
        exact = first * WIDTH / (WIDTH**2 + sigmas[0] ** 2) ** 0.5
        if name == "DDIM":  # it stops at timestep 1 and hands out latents of variance one
            low = sigmas[-1]
            exact = exact * (WIDTH**2 + low**2) ** 0.5 / WIDTH / (low**2 + 1) ** 0.5
        ends[steps] = float((sampler.sample(predict, steps, seeded_noise()) - exact).abs().max() / exact.abs().max())
    assert ends[50] < 0.06
    assert ends[200] < max(ends[50] / 2, 2e-3)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_velocities_and_noise_of_one_network_lead_to_the_same(name):
    def predict_velocity(x: Tensor, timestep: Tensor) -> Tensor:
        """sqrt(a) noise - sqrt(1 - a) x0 of the noise that the other predicts."""
        power = 1 / (sigma_of(timestep) ** 2 + 1)
        noise = predict(x, timestep)
        return (noise - (1 - power) ** 0.5 * x) / power**0.5

    sampler = SAMPLERS[name]
    by_noise = sampler.sample(predict, 8, seeded_noise())
    by_velocity = sampler.sample(predict_velocity, 8, seeded_noise(), velocity=True)
    torch.testing.assert_close(by_velocity, by_noise, rtol=1e-4, atol=1e-5)


def test_ddim_is_song_et_als():
    """Song et al. (2021), equation 12 without noise, in latents of variance one, over A1111's timesteps."""
    x = seeded_noise()()
    timesteps = [801, 601, 401, 201, 1]
    alphas = 1 / (trained_sigmas() ** 2 + 1)
    for timestep, following in pairwise(timesteps):
        noise = predict(x, torch.tensor(float(timestep)))
        clean = (x - (1 - alphas[timestep]) ** 0.5 * noise) / alphas[timestep] ** 0.5
        x = alphas[following] ** 0.5 * clean + (1 - alphas[following]) ** 0.5 * noise
    torch.testing.assert_close(SAMPLERS["DDIM"].sample(predict, 5, seeded_noise()), x, rtol=1e-4, atol=1e-5)


def test_the_second_order_is_closer():
    start = seeded_noise()() * trained_sigmas()[-1]
    exact = start * WIDTH / (WIDTH**2 + trained_sigmas()[-1] ** 2) ** 0.5
    sigmas = karras_sigmas(20)
    errors = {}
    for name in ("Euler", "DPM++ 2M"):
        end = SAMPLERS[name].walk(denoiser(predict), start, sigmas, seeded_noise())
        errors[name] = float((end - exact).abs().mean())
    assert errors["DPM++ 2M"] < errors["Euler"] / 4


def test_ancestral_steps_keep_the_distribution():
    end = SAMPLERS["Euler a"].sample(predict, 100, seeded_noise())
    assert float(end.std()) == pytest.approx(WIDTH, rel=0.05)
    again = SAMPLERS["Euler a"].sample(predict, 100, seeded_noise())
    assert torch.equal(end, again)
    assert not torch.allclose(end, SAMPLERS["Euler"].sample(predict, 100, seeded_noise()), atol=0.1)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 1000])
def test_any_number_of_steps_is_finite(name, steps):
    assert SAMPLERS[name].sample(predict, steps, seeded_noise((1, 4, 2, 2))).isfinite().all()


def test_names():
    assert sampler_named("euler A") is SAMPLERS["Euler a"]
    with pytest.raises(SettingsError, match=r"'LMS'.*Euler, Euler a, DPM\+\+ 2M, DPM\+\+ 2M SDE SGM Uniform, DDIM"):
        sampler_named("LMS")


@pytest.mark.parametrize("steps", [8, 25])
def test_dpmpp_2m_sde_is_the_published_scheduler(steps: int) -> None:
    """Step by step beside diffusers' scheduler as the published pipelines make it, which rounds its timesteps."""
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", algorithm_type="sde-dpmsolver++"
    )
    scheduler.set_timesteps(steps)
    noise = seeded_noise()
    expected = noise()
    for timestep in scheduler.timesteps:
        expected = scheduler.step(predict(expected, timestep.float()), timestep, expected, variance_noise=noise())[0]
    exact = Sampler(lambda steps: scheduler.sigmas, dpmpp_2m_sde)
    noise = seeded_noise()
    torch.testing.assert_close(exact.sample(predict, steps, noise), expected, rtol=1e-3, atol=1e-3)
    ours = SAMPLERS["DPM++ 2M SDE SGM Uniform"].sigmas(steps)
    assert (timestep_of(ours[:-1]) - scheduler.timesteps).abs().max() <= 0.5

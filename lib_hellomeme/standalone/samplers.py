"""The samplers of the webuis, under their names there, in k-diffusion's terms: x = x0 + sigma * noise.

Sources: crowsonkb/k-diffusion `sampling.py` and `external.py`, AUTOMATIC1111 1.10 `modules/sd_samplers_*.py`. The
schedulers of diffusers round timesteps or space sigmas otherwise: the same seed would give another picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lib_hellomeme.errors import SettingsError

TRAINED_STEPS = 1000

Predict = Callable[[Tensor, Tensor], Tensor]  # (scaled x (n, 4, h, w), timestep ()) -> the noise in it, or the velocity
Denoise = Callable[[Tensor, Tensor], Tensor]  # (x, sigma ()) -> x0
Noise = Callable[[], Tensor]  # standard normal, of x's shape, another one each time
Walk = Callable[[Denoise, Tensor, Tensor, Noise], Tensor]


def trained_sigmas() -> Tensor:
    """(1000,) the noise level of each timestep of SD1.5: betas linear in their roots from 0.00085 to 0.012."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TRAINED_STEPS, dtype=torch.float64) ** 2
    alphas = (1 - betas).cumprod(0).float()
    return ((1 - alphas) / alphas) ** 0.5


def sigma_of(timestep: Tensor) -> Tensor:
    """Noise level of a timestep, between whole ones by its logarithm."""
    logarithms = trained_sigmas().log()
    low, high, share = timestep.floor().long(), timestep.ceil().long(), timestep.frac()
    return ((1 - share) * logarithms[low] + share * logarithms[high]).exp()


def timestep_of(sigma: Tensor) -> Tensor:
    """The timestep of a noise level, `sigma_of` backwards, within 0 to 999."""
    logarithms = trained_sigmas().log()
    low = (torch.searchsorted(logarithms, sigma.log(), right=True) - 1).clamp(0, TRAINED_STEPS - 2)
    share = (sigma.log() - logarithms[low]) / (logarithms[low + 1] - logarithms[low])
    return low + share.clamp(0, 1)


def denoiser(predict: Predict) -> Denoise:
    """A network that predicts noise, as one that predicts the clean latents."""
    return lambda x, sigma: x - sigma * predict(x / (sigma**2 + 1) ** 0.5, timestep_of(sigma))


def denoiser_of_velocity(predict: Predict) -> Denoise:
    """The same for one that predicts velocities (k-diffusion's VDenoiser)."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        power = 1 / (sigma**2 + 1)
        return x * power - sigma * power**0.5 * predict(x * power**0.5, timestep_of(sigma))

    return denoise


def uniform_sigmas(steps: int) -> Tensor:
    """(steps + 1,) levels of evenly spaced timesteps, then 0."""
    return _with_zero(sigma_of(torch.linspace(TRAINED_STEPS - 1, 0, steps)))


def sgm_uniform_sigmas(steps: int) -> Tensor:
    """(steps + 1,) levels of evenly spaced timesteps of which the last, 0, is left out, then 0."""
    return _with_zero(sigma_of(torch.linspace(TRAINED_STEPS - 1, 0, steps + 1)[:-1]))


def karras_sigmas(steps: int, rho: float = 7.0) -> Tensor:
    """(steps + 1,) the schedule of Karras et al. (2022), equation 5, then 0."""
    low, high = (float(level) ** (1 / rho) for level in trained_sigmas()[[0, -1]])
    return _with_zero((high + torch.linspace(0, 1, steps) * (low - high)) ** rho)


def ddim_sigmas(steps: int) -> Tensor:
    """(steps,) or more levels as the webuis' DDIM walks them: it ends at timestep 1, and takes one step less."""
    timesteps = (torch.arange(0, TRAINED_STEPS, TRAINED_STEPS // steps) + 1).clamp(max=TRAINED_STEPS - 1)
    return trained_sigmas()[timesteps.flip(0)]


def _with_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def euler(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """Karras et al. (2022), algorithm 2 without churn."""
    for sigma, following in pairwise(sigmas):
        derivative = (x - denoise(x, sigma)) / sigma
        x = x + derivative * (following - sigma)
    return x


def euler_ancestral(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """Euler's method below the next level, then fresh noise up to it."""
    for sigma, following in pairwise(sigmas):
        up = torch.minimum(following, (following**2 * (sigma**2 - following**2) / sigma**2) ** 0.5)
        down = (following**2 - up**2) ** 0.5
        derivative = (x - denoise(x, sigma)) / sigma
        x = x + derivative * (down - sigma)
        if following > 0:
            x = x + noise() * up
    return x


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """DPM-Solver++(2M), Lu et al. (2022), algorithm 2."""
    times = -sigmas.log()
    before: Tensor | None = None
    for i in range(len(sigmas) - 1):
        clean = denoise(x, sigmas[i])
        h = times[i + 1] - times[i]
        slope = clean
        if before is not None and sigmas[i + 1] > 0:
            r = (times[i] - times[i - 1]) / h
            slope = (1 + 1 / (2 * r)) * clean - 1 / (2 * r) * before
        x = sigmas[i + 1] / sigmas[i] * x - torch.expm1(-h) * slope
        before = clean
    return x


def dpmpp_2m_sde(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """SDE-DPM-Solver++(2M), Lu et al. (2022), with the midpoint method."""
    times = -sigmas.log()
    before: Tensor | None = None
    for i in range(len(sigmas) - 1):
        clean = denoise(x, sigmas[i])
        h = times[i + 1] - times[i]
        x = sigmas[i + 1] / sigmas[i] * torch.exp(-h) * x - torch.expm1(-2 * h) * clean
        if sigmas[i + 1] > 0:
            if before is not None:
                r = (times[i] - times[i - 1]) / h
                x = x - 0.5 * torch.expm1(-2 * h) / r * (clean - before)
            x = x + noise() * sigmas[i + 1] * (-torch.expm1(-2 * h)) ** 0.5
        before = clean
    return x


@dataclass(frozen=True)
class Sampler:
    """`unit_scale`: the latents are sqrt(alpha) * x, of variance one at the start (DDIM), and not x itself."""

    sigmas: Callable[[int], Tensor]
    walk: Walk
    unit_scale: bool = False

    def sample(self, predict: Predict, steps: int, noise: Noise, velocity: bool = False) -> Tensor:
        """Latents (n, 4, h, w) from noise; `noise` is asked first for where the walk begins. velocity: what `predict`
        predicts is not the noise."""
        sigmas = self.sigmas(steps)
        start, end = (sigmas[[0, -1]] ** 2 + 1) ** 0.5 if self.unit_scale else (sigmas[0], 1.0)
        denoise = (denoiser_of_velocity if velocity else denoiser)(predict)
        return self.walk(denoise, noise() * start, sigmas, noise) / end


SAMPLERS: dict[str, Sampler] = {
    "Euler": Sampler(uniform_sigmas, euler),
    "Euler a": Sampler(uniform_sigmas, euler_ancestral),
    "DPM++ 2M": Sampler(karras_sigmas, dpmpp_2m),
    "DPM++ 2M SDE SGM Uniform": Sampler(sgm_uniform_sigmas, dpmpp_2m_sde),
    "DDIM": Sampler(ddim_sigmas, euler, unit_scale=True),
}
"""With the schedules that the webuis choose by themselves, where no other is named."""


def sampler_named(name: str) -> Sampler:
    """The sampler of this name, in any case. Raises SettingsError listing those that are there."""
    for known, sampler in SAMPLERS.items():
        if known.lower() == name.lower():
            return sampler
    raise SettingsError(f"There is no sampler {name!r} here; there are: {', '.join(SAMPLERS)}.")

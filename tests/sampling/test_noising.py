from __future__ import annotations

import torch

from lib_hellomeme.sampling.noising import noised, seeded_noise
from tests.goldens_format import seeded


def test_the_level_is_the_schedule_s_at_the_rounded_timestep() -> None:
    alphas = torch.linspace(0.99, 0.01, 1000)
    latents, noise = seeded("noising/latents", (1, 4, 3, 5)), seeded("noising/noise", (3, 4, 3, 5))
    got = noised(latents, noise, alphas, torch.tensor([500.5, 501.5, 1000.0]))  # halves go to the even neighbour
    for row, index in enumerate((500, 502, 999)):
        wanted = alphas[index].sqrt() * latents[0] + (1 - alphas[index]).sqrt() * noise[row]
        torch.testing.assert_close(got[row], wanted)


def test_noise_is_decided_by_its_key_alone() -> None:
    first = seeded_noise((1, 4, 8, 8), 42, 0, True, 951.0)
    torch.manual_seed(1)
    assert torch.equal(seeded_noise((1, 4, 8, 8), 42, 0, True, 951.0), first)
    for other in ((43, 0, True, 951.0), (42, 1, True, 951.0), (42, 0, False, 951.0), (42, 0, True, 901.0)):
        assert abs((seeded_noise((1, 4, 8, 8), *other) * first).mean()) < 0.2
    state = torch.get_rng_state()
    seeded_noise((1, 4, 8, 8), 1)
    assert torch.equal(torch.get_rng_state(), state)  # the host's own noise is not disturbed

"""First weights: the VAE passes colours, whatever the size and the colours are."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib_hellomeme.training.beginnings import VECTORS, begin_with_colours, rates_by_size, unit_outputs
from lib_hellomeme.training.diffusion import seeded
from lib_hellomeme.training.models import new_vae, posterior, rebuild, without_silent_resnets


@pytest.mark.parametrize("side", [32, 64])
def test_the_vae_begins_with_average_colours(side: int) -> None:
    torch.manual_seed(0)
    vae = begin_with_colours(without_silent_resnets(new_vae())).eval()
    generator = seeded(side)
    squares = torch.rand(3, 3, side // 8, side // 8, generator=generator) * 2 - 1
    plain = torch.rand(3, 3, 1, 1, generator=generator) * 2 - 1  # most of the third picture is of one colour
    squares[2, :, 1:] = plain[2]
    pictures = F.interpolate(squares, scale_factor=8)
    with torch.no_grad():
        seen = posterior(vae, pictures)
        rebuilt = F.avg_pool2d(rebuild(vae, seen.mean), 8)
    assert (rebuilt - squares).abs().mean() < 0.1
    assert seen.std.max() < 0.1
    # The colours of whole pictures, which a norm of single channels would take away.
    assert (rebuilt.mean(dim=(2, 3)) - squares.mean(dim=(2, 3))).abs().max() < 0.15


def test_all_of_a_beginning_can_learn() -> None:
    torch.manual_seed(0)
    vae = begin_with_colours(without_silent_resnets(new_vae()))
    optimizer = torch.optim.SGD(vae.parameters(), lr=1e-2)
    pictures = torch.rand(2, 3, 32, 32, generator=seeded(2)) * 2 - 1
    for _ in range(2):  # in the first step nothing gets past the last layers of what is silent
        optimizer.zero_grad()
        vae(pictures, sample_posterior=True, generator=seeded(3)).sample.square().mean().backward()
        optimizer.step()
    still = [name for name, value in vae.named_parameters() if value.grad is None or not value.grad.any()]
    # One token asks nobody but itself; a key's bias is the same for all that are asked.
    assert all("attentions" in name for name in still), still


def test_rates_go_by_the_weights_size() -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8))
    with torch.no_grad():
        nn.init.constant_(network.get_parameter("0.weight"), -0.02)
        nn.init.constant_(network.get_parameter("2.weight"), 4.0)
    rates = rates_by_size(network, {network[2]: 3.0})
    found = [rates[parameter] for parameter in network.parameters()]
    assert found == pytest.approx([0.02, VECTORS, VECTORS, VECTORS, 12.0, 3 * VECTORS], rel=1e-5)


def test_faint_outputs_are_left_as_they_are() -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    with torch.no_grad():
        network.get_parameter("1.weight").mul_(1e-5)
    faint = network.get_parameter("1.weight").clone()
    with torch.no_grad(), unit_outputs(network, {network[0]: 3.0}):
        network(torch.randn(64, 8, generator=seeded(1)))
    assert torch.equal(network.get_parameter("1.weight"), faint)
    assert network[0](torch.randn(64, 8, generator=seeded(1))).std().item() == pytest.approx(3.0, rel=0.05)

"""The narrow networks: what is left out of them in training, and that they can tell colours."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lib_hellomeme.training.diffusion import seeded
from lib_hellomeme.training.models import (
    SILENT_RESNETS,
    VAE_WIDTHS,
    WIDTHS,
    Passing,
    keep_layout,
    new_unet,
    new_vae,
    without_silent_resnets,
)

PICTURES = torch.rand(2, 3, 32, 32, generator=seeded(0)) * 2 - 1


def test_silent_resnets_are_left_out_and_nothing_changes() -> None:
    vae = new_vae().eval()
    lighter = without_silent_resnets(vae)
    left_out = [name for name, module in lighter.named_modules() if isinstance(module, Passing)]
    assert sorted(left_out) == sorted(SILENT_RESNETS)
    with torch.no_grad():
        torch.testing.assert_close(lighter(PICTURES).sample, keep_layout(vae)(PICTURES).sample, rtol=0, atol=0)
    whole = new_vae()
    whole.load_state_dict({**whole.state_dict(), **lighter.state_dict()})
    assert all(torch.equal(value, vae.state_dict()[name]) for name, value in whole.state_dict().items())


@pytest.mark.parametrize("lighter", [False, True])
def test_in_training_features_stay_in_the_layout_that_learns_faster(lighter: bool) -> None:
    vae, given = new_vae().eval(), []
    network = without_silent_resnets(vae) if lighter else vae
    network.decoder.conv_out.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].is_contiguous()))
    with torch.no_grad():
        network(PICTURES)
    assert given == [lighter]


def test_a_resnet_that_adds_something_stays() -> None:
    vae = new_vae()
    resnet = vae.get_submodule(SILENT_RESNETS[0])
    nn.init.constant_(resnet.get_parameter("conv2.bias"), 0.1)
    kept = without_silent_resnets(vae).get_submodule(SILENT_RESNETS[0])
    assert type(kept) is type(resnet)


@pytest.mark.parametrize("norm", [new_unet().conv_norm_out, new_vae().decoder.conv_norm_out])
def test_colours_pass_the_last_norm(norm: nn.GroupNorm) -> None:
    """A change of one channel's mean over the whole map is seen behind it."""
    hidden = torch.randn(1, norm.num_channels, 8, 8, generator=seeded(1))
    moved = hidden.clone()
    moved[:, 0] += 1.0
    with torch.no_grad():
        change = (norm(moved) - norm(hidden)).mean(dim=(2, 3)).abs().max()
    assert change > 0.3
    assert min(WIDTHS[0], VAE_WIDTHS[0]) >= 2 * norm.num_groups

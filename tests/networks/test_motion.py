"""Motion layers beyond the golden cases: many frames, narrow widths."""

import pytest
import torch

from lib_hellomeme.networks.motion import KnittedMotion, KnittedMotionV5, MotionAdapter
from tests.goldens_format import seed_weights, seeded


@pytest.fixture(params=[KnittedMotion, KnittedMotionV5], ids=lambda layer: layer.__name__)
def layer(request):
    layer = request.param(32)
    seed_weights(layer)
    return layer


@pytest.mark.parametrize("frames", [1, 40, 160])
def test_any_number_of_frames(layer, frames):
    hidden, padding = seeded("hidden", (frames, 32, 2, 3)), seeded("padding", (1, 32, 2, 2, 3))
    out = layer(hidden, padding, seeded("time", (frames, 1280)), frames)
    assert out.shape == hidden.shape
    assert torch.isfinite(out).all()


def test_rows_do_not_mix(layer):
    frames = 3
    hidden, padding = seeded("hidden", (2 * frames, 32, 2, 3)), seeded("padding", (2, 32, 2, 2, 3))
    time = seeded("time", (2 * frames, 1280))
    both = layer(hidden, padding, time, frames)
    second = layer(hidden[frames:], padding[1:], time[frames:], frames)
    torch.testing.assert_close(both[frames:], second, atol=1e-5, rtol=1e-5)


def test_sites():
    adapter = MotionAdapter((32, 64, 128, 128))
    assert list(adapter.sites()) == [f"{way}.{level}" for way in ("down", "up") for level in range(4)]
    assert adapter.sites()["up.3"].get_submodule("attn1.norm").num_channels == 64

"""Clips and the layers along the frames: what they see, where they stand, what learns."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lib_hellomeme.checkpoints.layouts import LAYOUTS
from lib_hellomeme.checkpoints.load import load_network
from lib_hellomeme.taps.bank import Bank, record
from lib_hellomeme.training.adapters import Heads
from lib_hellomeme.training.clips import CLIP_FRAMES, draw_clip
from lib_hellomeme.training.data import Request
from lib_hellomeme.training.diffusion import seeded
from lib_hellomeme.training.faces import turned_degrees
from lib_hellomeme.training.loop import Recipe, save_network
from lib_hellomeme.training.models import Adapters, Network, new_animatediff, new_motion, new_unet
from lib_hellomeme.training.motion import (
    FRAMES,
    Window,
    animatediff_taps,
    chosen_windows,
    first_frames,
    guiding_taps,
    motion_taps,
    padding_of,
    take_back,
)
from lib_hellomeme.training.pool import Pool
from lib_hellomeme.unet.diffusers import DiffusersPort
from lib_hellomeme.unet.port import Call, Rows, Tap

LENGTH = 3


@pytest.fixture(scope="module")
def port() -> DiffusersPort:
    torch.manual_seed(0)
    return DiffusersPort(new_unet().eval().requires_grad_(False))


@pytest.fixture(scope="module")
def window() -> Window:
    """One window as uncond sees it and one with everything."""
    generator = seeded(5)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    rows = Rows((True,) * LENGTH + (False,) * LENGTH, tuple(range(LENGTH)) * 2)
    context = random(2, 77, 64).repeat_interleave(LENGTH, dim=0)
    call = Call(random(2 * LENGTH, 4, 8, 8), torch.full((2 * LENGTH,), 400), context, rows)
    own, target = (Heads(random(n, 3, 64, 64), random(n, 51)) for n in (2, 2 * LENGTH))
    return Window(call, LENGTH, random(2, 4, 8, 8), own, target, (random(2, 4, 8, 8), random(2, 4, 8, 8)))


def stirred(network: Network) -> Network:
    """Past its silent beginning."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def test_clips_move_smoothly_and_show_one_person():
    request = Request(0, 64, CLIP_FRAMES)
    clip, again = draw_clip(request, 3), draw_clip(request, 3)
    assert np.array_equal(clip.pictures, again.pictures)
    assert clip.pictures.shape == (CLIP_FRAMES, 64, 64, 3)
    rotations = [face.rotation for face in clip.faces]
    steps = [turned_degrees(a, b) for a, b in pairwise(rotations)]
    assert max(steps) < 20
    assert sum(steps) > 20
    assert draw_clip(request, 4).identity != clip.identity


def test_windows_lie_within_their_clips():
    recipe = Recipe("motion", steps=1, seed=0, size=64, batch=64, people=2, views=2, rate=1e-3)
    empty = torch.zeros(5, CLIP_FRAMES, 1)
    clips, frames = chosen_windows(Pool(empty, empty, empty, empty, empty), recipe, 0)
    assert frames.shape == (64, FRAMES)
    assert frames.min() >= 0
    assert frames.max() < CLIP_FRAMES
    assert set(np.diff(frames)[:, 0]) == {1, 2, 3}
    assert set(clips) == set(range(5))


def test_new_layers_change_nothing(port: DiffusersPort, window: Window):
    with torch.no_grad():
        plain = port.run(window.call)
        for taps in (motion_taps(port, new_motion(), window, False), animatediff_taps(new_animatediff(), LENGTH)):
            torch.testing.assert_close(port.run(window.call, taps), plain, rtol=0, atol=0)


def test_known_ends_change_little_at_first(port: DiffusersPort, window: Window):
    motion = new_motion()

    def change() -> float:
        with torch.no_grad():
            plain, drawn = port.run(window.call), port.run(window.call, motion_taps(port, motion, window, True))
        return float((drawn - plain).abs().mean() / plain.abs().mean())

    doubled = change()
    take_back(port, motion, window, [])
    assert change() < 0.35 * doubled


def test_gradients_reach_every_motion_tensor_and_nothing_else(port: DiffusersPort, window: Window):
    adapters = Adapters().eval().requires_grad_(False)
    stirred(adapters)
    for network, make in (
        (new_motion(), lambda network: motion_taps(port, network, window, padded=True)),
        (new_animatediff(), lambda network: animatediff_taps(network, LENGTH)),
    ):
        stirred(network)
        predicted = port.run(window.call, [*guiding_taps(port, adapters, window), *make(network)])
        predicted.square().mean().backward()
        silent = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
        assert silent == []
    assert all(value.grad is None for network in (adapters, port.unet) for value in network.parameters())


def test_the_padding_is_what_a_whole_bare_pass_leaves(port: DiffusersPort, window: Window):
    motion = new_motion()
    padding = padding_of(port, motion, window)
    for place, latents in enumerate(window.ends):
        bank: Bank = {}
        with torch.no_grad():
            port.run(first_frames(window, latents), [record(site, bank) for site in motion.sites()])
        for site, kept in padding.items():
            torch.testing.assert_close(kept[:, :, place], bank[site], rtol=0, atol=0)


def test_the_ends_are_seen_only_where_they_are_known(port: DiffusersPort, window: Window):
    motion = stirred(new_motion())
    other = window._replace(ends=(window.ends[0] + 1, window.ends[1]))

    @torch.no_grad()
    def drawn(window: Window, padded: bool) -> Tensor:
        return port.run(window.call, motion_taps(port, motion, window, padded))

    assert torch.equal(drawn(window, False), drawn(other, False))
    assert not torch.equal(drawn(window, True), drawn(other, True))


def test_frames_see_each_other_and_windows_do_not(port: DiffusersPort, window: Window):
    motion, animatediff = stirred(new_motion()), stirred(new_animatediff())
    sample = window.call.sample.clone()
    sample[0] += 1  # the first window's first frame
    changed = window._replace(call=replace(window.call, sample=sample))

    def change(make) -> list[bool]:
        with torch.no_grad():
            outputs = [port.run(one.call, make(one)) for one in (window, changed)]
        return [not torch.equal(a, b) for a, b in zip(*outputs, strict=True)]

    for make in (lambda one: motion_taps(port, motion, one, True), lambda one: animatediff_taps(animatediff, LENGTH)):
        assert change(make) == [True] * LENGTH + [False] * LENGTH
    assert change(lambda one: list[Tap]()) == [True] + [False] * (2 * LENGTH - 1)


@pytest.mark.parametrize(
    ("network", "layout", "millions"), [(new_motion(), "hm5_motion", 4.2), (new_animatediff(), "animatediff", 4.6)]
)
def test_exported_layers_are_the_published_layouts(network: nn.Module, layout: str, millions: float, tmp_path):
    path = tmp_path / "layers.safetensors"
    save_network(path, network)
    loaded = load_network(path, (layout,))
    assert type(loaded) is type(LAYOUTS[layout].build({}))
    assert sum(value.numel() for value in network.state_dict().values()) / 1e6 == pytest.approx(millions, abs=0.1)
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value.float(), network.state_dict()[name], rtol=1e-3, atol=1e-6)

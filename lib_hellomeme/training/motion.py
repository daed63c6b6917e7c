"""The stages `motion` and `animatediff`: layers along the frames learn from clips, everything else is frozen.

A step denoises windows of frames: one timestep a window, noise of its own for each frame. The taps stand where video
recipes have them. HelloMeme's own motion (v5) sees, as a padding, what bare passes over the window's clean first and
last frame leave, and nothing where these are still to be drawn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lib_hellomeme.networks.animatediff import AnimateDiffAdapter
from lib_hellomeme.networks.motion import KnittedMotionV5, MotionAdapter
from lib_hellomeme.taps.bank import Bank, record, write
from lib_hellomeme.training.adapters import (
    UNCOND_DROP,
    Heads,
    add_control,
    control_of,
    heads_of,
    load_adapters,
)
from lib_hellomeme.training.autoencoder import UNSEEN
from lib_hellomeme.training.base import CHECKPOINT, GUIDANCE, SAMPLING_STEPS, random_timesteps
from lib_hellomeme.training.clips import clip_pool, draw_clip
from lib_hellomeme.training.data import Request
from lib_hellomeme.training.diffusion import add_noise, ddim, guided, seeded, velocity_loss
from lib_hellomeme.training.loop import EVEN_RATES, Recipe, Run, save_network
from lib_hellomeme.training.models import Adapters, CheckpointTools, frozen_model, new_animatediff, new_motion
from lib_hellomeme.training.pool import Pool, decode, encode, sheet
from lib_hellomeme.training.reference import CAPTION_DROP, write_reference
from lib_hellomeme.unet.diffusers import DiffusersPort
from lib_hellomeme.unet.port import TEMPORAL, Call, Port, Rows, Tap

FRAMES = 8  # of a window
STRIDES = (1, 1, 1, 2, 3)  # between its frames: keyframes stand further apart
PADDED = 0.7  # share of the steps in which the first and the last frame are known
GUIDED = 0.5  # share of AnimateDiff's steps in which reference and control act too
SHOWN = 2  # people on the sheet

MOTION_FILE, ANIMATEDIFF_FILE = "hm5_motion.safetensors", "animatediff.safetensors"
LAST_OF_BRANCHES = ("to_out.0.weight", "to_out.0.bias", "ff.net.2.weight", "ff.net.2.bias")
MIDDLE = "temporal.8"  # where AnimateDiff's v2 alone has a layer


class Window(NamedTuple):
    """n windows of `frames` frames, one after the other in the call's rows."""

    call: Call  # n * frames rows
    frames: int
    reference: Tensor  # (n, 4, h, w), zeros where uncond
    own: Heads  # the reference's, n
    target: Heads  # n * frames
    ends: tuple[Tensor, Tensor]  # clean latents of the first and the last frame, (n, 4, h, w), zeros where uncond


class ClipStage(ABC):
    """What both stages share: clips, frozen networks, the loss, and drawing an unseen clip."""

    file: str  # what is exported
    networks: nn.Module

    def __init__(self, recipe: Recipe, run: Run, tools: CheckpointTools) -> None:
        self.recipe, self.run, self.tools, self.rates = recipe, run, tools, EVEN_RATES
        self.model = frozen_model(tools.read(run.folder / CHECKPOINT), run.device)
        self.port = DiffusersPort(self.model.unet)
        self.adapters = load_adapters(run.folder, run.device)
        self.pool = clip_pool(
            run.folder, recipe.seed, recipe.size, recipe.people, self.model.vae, tools.tokens, run.workers
        )
        self.empty = torch.tensor(tools.tokens(""))
        torch.manual_seed(recipe.seed)
        self.networks = self.new_networks()

    @abstractmethod
    def new_networks(self) -> nn.Module:
        """What is trained, as it begins."""

    @abstractmethod
    def taps(self, window: Window, chance: float) -> Sequence[Tap]:
        """All that acts in this window; `chance` in [0, 1) decides what may be missing."""

    def export(self) -> list[Path]:
        path = self.run.folder / self.file
        save_network(path, self.networks)
        return [path]

    def loss(self, step: int) -> Tensor:
        window, latents, noise, chance = self._step(step)
        predicted = self.port.run(window.call, self.taps(window, chance))
        return velocity_loss(predicted, latents, noise, window.call.timestep)

    def _step(self, step: int) -> tuple[Window, Tensor, Tensor, float]:
        """The windows, their latents and the noise in them (n * frames, 4, h, w), and a number in [0, 1)."""
        clips, frames = chosen_windows(self.pool, self.recipe, step)
        generator = seeded(self.recipe.seed, step)
        count, length = frames.shape
        latents = self.pool.latents[clips[:, None], frames].float().flatten(0, 1)
        noise = torch.randn(latents.shape, generator=generator)
        timestep = random_timesteps(count, generator).repeat_interleave(length)
        drop, chance = torch.rand(count, generator=generator), float(torch.rand(1, generator=generator))
        device = self.run.device
        latents, noise, timestep = latents.to(device), noise.to(device), timestep.to(device)
        noised = add_noise(latents, noise, timestep)
        return self._window(self.pool, clips, frames, drop, noised, timestep, step), latents, noise, chance

    @torch.no_grad()
    def validate(self) -> np.ndarray:
        """For each unseen person the clip, what is drawn frame by frame, and what is drawn with motion."""
        rows = []
        for index in range(SHOWN):
            person = draw_clip(Request(self.recipe.seed + UNSEEN, self.recipe.size, FRAMES), index)
            pool = Pool(
                encode(self.model.vae, person.pictures).cpu()[None],
                torch.tensor(self.tools.tokens(person.identity.caption))[None],
                *(
                    torch.tensor(np.stack([getattr(face, part) for face in person.faces]), dtype=torch.float32)[None]
                    for part in ("rotation", "translation", "coefficients")
                ),
            )
            rows += [person.pictures, *(self._draw(pool, index, moving) for moving in (False, True))]
        return sheet(rows)

    def _draw(self, pool: Pool, index: int, moving: bool) -> np.ndarray:
        """(FRAMES, size, size, 3): a pool of one clip drawn anew, its first frame the reference."""
        frames = np.arange(FRAMES)[None].repeat(2, axis=0)
        drop = torch.tensor([0.0, 0.5])  # the uncond rows, and cond rows without a caption
        noise = torch.randn(pool.latents[0].shape, generator=seeded(self.recipe.seed, index)).to(self.run.device)
        both = noise.repeat(2, 1, 1, 1)
        window = self._window(pool, np.zeros(2, int), frames, drop, both, torch.zeros(len(both)).long(), None)
        taps = self.taps(window, 1.0 - 1e-6) if moving else guiding_taps(self.port, self.adapters, window)

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            call = window.call
            call = Call(latents.repeat(2, 1, 1, 1), timestep.repeat(2), call.context, call.rows)
            return guided(self.port.run(call, taps), GUIDANCE)

        return decode(self.model.vae, ddim(predict, noise, SAMPLING_STEPS))

    def _window(
        self,
        pool: Pool,
        clips: np.ndarray,
        frames: np.ndarray,
        drop: Tensor,
        noised: Tensor,
        timestep: Tensor,
        step: int | None,
    ) -> Window:
        """clips (n,) and their frames (n, f); a step decides which frame is the reference, without one the first is."""
        device, (count, length) = self.run.device, frames.shape
        uncond = drop < UNCOND_DROP
        tokens = torch.where((drop < UNCOND_DROP + CAPTION_DROP)[:, None], self.empty, pool.tokens[clips])
        with torch.no_grad():
            context = self.model.text_encoder(tokens.to(device)).last_hidden_state.repeat_interleave(length, dim=0)
        rows = Rows(tuple(uncond.repeat_interleave(length).tolist()), tuple(range(length)) * count)
        shown = np.zeros(count, int)
        if step is not None:
            shown = np.random.default_rng([self.recipe.seed, step, 2]).integers(pool.latents.shape[1], size=count)

        def clean(places: np.ndarray) -> Tensor:
            return torch.where(uncond[:, None, None, None], 0.0, pool.latents[clips, places].float()).to(device)

        size = self.recipe.size
        each = uncond.repeat_interleave(length)
        target = heads_of(pool, clips.repeat(length), frames.reshape(-1), each, size)
        return Window(
            Call(noised, timestep.to(device), context, rows),
            length,
            clean(shown),
            heads_of(pool, clips, shown, uncond, size).to(device),
            target.to(device),
            (clean(frames[:, 0]), clean(frames[:, -1])),
        )


class MotionStage(ClipStage):
    """v5's motion adapter, on top of reference and control."""

    file = MOTION_FILE
    networks: MotionAdapter

    def new_networks(self) -> MotionAdapter:
        motion = new_motion()
        window, _, _, _ = self._step(0)
        take_back(self.port, motion, window, guiding_taps(self.port, self.adapters, window))
        return motion

    def taps(self, window: Window, chance: float) -> Sequence[Tap]:
        guiding = guiding_taps(self.port, self.adapters, window)
        padded = chance >= 1 - PADDED
        return [*guiding, *motion_taps(self.port, self.networks, window, padded)]


class AnimateDiffStage(ClipStage):
    """AnimateDiff's layers, with the captions alone and together with reference and control. They are exported under
    diffusers' names; the catalog tells them by their tensors and takes them for a published AnimateDiff."""

    file = ANIMATEDIFF_FILE
    networks: AnimateDiffAdapter

    def new_networks(self) -> AnimateDiffAdapter:
        return new_animatediff()

    def taps(self, window: Window, chance: float) -> Sequence[Tap]:
        guiding = guiding_taps(self.port, self.adapters, window) if chance >= 1 - GUIDED else []
        return [*animatediff_taps(self.networks, window.frames), *guiding]


def chosen_windows(pool: Pool, recipe: Recipe, step: int) -> tuple[np.ndarray, np.ndarray]:
    """A step's clips (n,) and for each the frames (n, FRAMES) of its window, evenly spaced."""
    generator = np.random.default_rng([recipe.seed, step])
    clips = generator.integers(len(pool.latents), size=recipe.batch)
    strides = generator.choice(STRIDES, size=recipe.batch)
    first = generator.integers(pool.latents.shape[1] - (FRAMES - 1) * strides)
    return clips, first[:, None] + strides[:, None] * np.arange(FRAMES)


@torch.no_grad()
def guiding_taps(port: Port, adapters: Adapters, window: Window) -> list[Tap]:
    """Frozen reference and control. The reference is written once a window and shared by its frames."""
    layers = adapters.reference.sites()
    bank = write_reference(port, adapters, first_frames(window, window.reference), window.own)
    prepared = {site: layer.prepare(bank[site]) for site, layer in layers.items()}
    reads = [
        Tap(site, lambda hidden, call, site=site, layer=layer: hidden + layer.read(hidden, prepared[site]))
        for site, layer in layers.items()
    ]
    return [*add_control(control_of(adapters.control, window.target)), *reads]


def motion_taps(port: Port, motion: MotionAdapter, window: Window, padded: bool) -> list[Tap]:
    """HelloMeme's motion, between the window's first and last frame where these are known."""
    padding: Mapping[str, Tensor] = padding_of(port, motion, window) if padded else {}
    return [
        Tap(site, lambda hidden, call, site=site, layer=layer: layer(hidden, padding.get(site), None, window.frames))
        for site, layer in motion.sites().items()
    ]


@torch.no_grad()
def take_back(port: Port, motion: MotionAdapter, window: Window, taps: Sequence[Tap]) -> None:
    """Let new layers begin with about nothing where the ends are known, too.

    The transformer over the padded frames adds its input a second time (networks/motion.py). It begins as the identity
    up to its norm and gives back the normed input, scaled as features are in this window, with a minus.
    """
    bank: Bank = {}
    port.run(window.call, [*taps, *(record(site, bank) for site in motion.sites())])
    for site, layer in motion.sites().items():
        assert isinstance(layer, KnittedMotionV5)
        transformer = layer.attn_pad
        grouped = bank[site].unflatten(1, (transformer.norm.num_groups, -1))
        deviation, mean = torch.std_mean(grouped, dim=(0, 2, 3, 4))
        each = bank[site].shape[1] // len(mean)
        nn.init.eye_(transformer.proj_in.weight)
        nn.init.zeros_(transformer.proj_in.bias)
        for block in transformer.transformer_blocks:
            for name, parameter in block.named_parameters():
                if name.endswith(LAST_OF_BRANCHES):
                    nn.init.zeros_(parameter)
        transformer.proj_out.weight.copy_(-deviation.repeat_interleave(each).diag())
        transformer.proj_out.bias.copy_(-mean.repeat_interleave(each))


@torch.no_grad()
def padding_of(port: Port, motion: MotionAdapter, window: Window) -> dict[str, Tensor]:
    """(n, C, 2, h, w) by site: what bare passes over the first and the last frame leave."""
    banks = [Bank(), Bank()]
    for latents, bank in zip(window.ends, banks, strict=True):
        write(port, first_frames(window, latents), bank, [record(site, bank) for site in motion.sites()])
    return {site: torch.stack([bank[site] for bank in banks], dim=2) for site in motion.sites()}


def animatediff_taps(adapter: AnimateDiffAdapter, frames: int) -> list[Tap]:
    places = [site for site in TEMPORAL if site != MIDDLE]
    return [
        Tap(site, lambda hidden, call, layer=layer: layer(hidden, frames))
        for site, layer in zip(places, adapter.layers().values(), strict=True)
    ]


def first_frames(window: Window, latents: Tensor) -> Call:
    """A pass at timestep 0 over latents (n, 4, h, w), with each window's own prompt."""
    call, every = window.call, slice(None, None, window.frames)
    rows = call.rows.chosen(range(0, len(call.rows), window.frames))
    return Call(latents, torch.zeros_like(call.timestep[every]), call.context[every], rows)

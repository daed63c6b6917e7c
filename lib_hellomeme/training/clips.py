"""Clips of drawn people who turn their heads and change their faces smoothly, as latents made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lib_hellomeme.training.data import Person, Request
from lib_hellomeme.training.faces import random_track
from lib_hellomeme.training.identity import random_identity
from lib_hellomeme.training.people import render
from lib_hellomeme.training.pool import Pool, make_pool

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

CLIP_SEED = 0xC11F  # beside the seed: clips show other people than the pool of views
CLIP_FRAMES = 24
PEOPLE_A_CLIP = 8  # people in the pool of views for one clip


def draw_clip(request: Request, index: int) -> Person:
    """The clip with this index: one person, whose `views` are the frames in order."""
    generator = np.random.default_rng([request.seed, index, CLIP_SEED])
    identity = random_identity(generator)
    hold = int(generator.integers(5, 12))  # frames from one state to the next
    track = random_track(generator, request.size, request.views, hold=hold)
    drawn = [render(identity, face) for face in track.frames]
    pictures, regions = (np.stack([getattr(one, part) for one in drawn]) for part in ("picture", "regions"))
    return Person(identity, tuple(one.face for one in drawn), pictures, regions, None)


def clip_pool(
    folder: Path,
    seed: int,
    size: int,
    people: int,
    vae: AutoencoderKL,
    tokens: Callable[[str], list[int]],
    workers: int,
) -> Pool:
    """The pool of clips that goes with a pool of so many people, kept in the run's folder."""
    request = Request(seed, size, views=CLIP_FRAMES)
    clips = max(2, people // PEOPLE_A_CLIP)
    return make_pool(folder / "clips.safetensors", request, clips, vae, tokens, workers, draw_clip)

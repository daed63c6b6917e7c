"""The stage `measure`: the network that evaluation measures with."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lib_hellomeme.face.track import ARKIT_INDEX, ARKIT_NAMES
from lib_hellomeme.training.autoencoder import UNSEEN, unseen_people
from lib_hellomeme.training.base import CHECKPOINT
from lib_hellomeme.training.data import Person, Request, counted, draw_people
from lib_hellomeme.training.diffusion import seeded
from lib_hellomeme.training.loop import EVEN_RATES, Recipe, Run, save_network
from lib_hellomeme.training.measure import MeasuringNetwork, fit_size, measuring_loss, own_error
from lib_hellomeme.training.models import CheckpointTools, frozen, without_silent_resnets
from lib_hellomeme.training.pool import decode, encode, sheet, to_pictures, to_tensor

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

FILE = "measure.safetensors"
TIMES = 8  # as many people as others see views: with fewer, brows are learned by heart (0.80 on them, 0.46 on others)
REBUILT_PEOPLE = 1 / 6  # share of them that are there as the VAE rebuilds them, too
REBUILT_ROWS = 1 / 2  # share of a batch that is rebuilt
AT_ONCE = 16  # pictures through the VAE
SIDES = {"Left": "Right", "Right": "Left"}
MIRROR = [ARKIT_INDEX[re.sub("Left$|Right$", lambda side: SIDES[side[0]], name)] for name in ARKIT_NAMES]


class MeasureStage:
    """Renderings with a little noise, half of them mirrored, and half of each batch through the VAE, because what is
    drawn has been through it."""

    def __init__(self, recipe: Recipe, run: Run, tools: CheckpointTools) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.run, self.rates = recipe, run, EVEN_RATES
        self.networks = MeasuringNetwork()
        count = TIMES * recipe.people * recipe.views
        request = Request(recipe.seed, recipe.size, views=1)
        self.people = list(counted(draw_people(request, range(count), run.workers), count))
        pictures = [person.pictures for person in self.people[: math.ceil(count * REBUILT_PEOPLE)]]
        with run.precision():
            self.rebuilt = through(
                frozen(tools.read(run.folder / CHECKPOINT).vae, run.device), np.concatenate(pictures)
            )

    def loss(self, step: int) -> Tensor:
        choose = np.random.default_rng([self.recipe.seed, step])
        part = math.ceil(self.recipe.batch * REBUILT_ROWS)
        first = choose.integers(len(self.rebuilt), size=part)
        others = choose.integers(len(self.people), size=self.recipe.batch - part)
        people = [self.people[index] for index in (*first, *others)]
        pictures = to_tensor(np.concatenate([self.rebuilt[first], *(person.pictures for person in people[part:])]))
        for index in np.flatnonzero(choose.random(len(people)) < 0.5):
            people[index], pictures[index] = mirrored(people[index]), pictures[index].flip(-1)
        generator = seeded(self.recipe.seed, step)
        gain = 1 + 0.05 * torch.randn(len(pictures), 3, 1, 1, generator=generator)
        noise = torch.randn(pictures.shape, generator=generator)
        strength = 0.06 * torch.rand(len(pictures), 1, 1, 1, generator=generator)
        changed = (pictures * gain + strength * noise).to(self.run.device)
        return measuring_loss(self.networks(fit_size(changed)), people)

    def validate(self) -> np.ndarray:
        """Unseen people and the regions that are found; prints the network's own error."""
        errors = own_error(self.networks, self.recipe.seed + UNSEEN, size=self.recipe.size)
        print(", ".join(f"{name} {value:.3f}" for name, value in errors.items()), flush=True)
        pictures = np.concatenate([person.pictures for person in unseen_people(self.recipe, 8)])
        regions = self.networks(fit_size(to_tensor(pictures).to(self.run.device)))["regions"].argmax(dim=1)
        shown = (regions[:, None].float() / 6 - 1).repeat(1, 3, 1, 1)
        shown = torch.nn.functional.interpolate(shown, size=pictures.shape[1:3])
        return sheet([pictures, to_pictures(shown)])

    def export(self) -> list[Path]:
        path = self.run.folder / FILE
        save_network(path, self.networks)
        return [path]


def mirrored(person: Person) -> Person:
    """What is known of a person in a mirror."""
    faces = tuple(
        replace(face, rotation=face.rotation * (1, -1, -1), coefficients=face.coefficients[MIRROR])
        for face in person.faces
    )
    return replace(person, faces=faces, pictures=person.pictures[:, :, ::-1], regions=person.regions[:, :, ::-1])


def through(vae: AutoencoderKL, pictures: np.ndarray) -> np.ndarray:
    """What the VAE makes of pictures (n, H, W, 3), RGB uint8."""
    lighter = without_silent_resnets(vae)
    # In one piece: rows of their own among large arrays that come and go broke up the memory, 24 GB of it in 840 steps.
    rebuilt = np.empty_like(pictures)
    steps = range(0, len(pictures), AT_ONCE)
    for first in tqdm(steps, "Through the VAE", file=sys.stderr, mininterval=5.0):
        part = slice(first, first + AT_ONCE)
        rebuilt[part] = decode(lighter, encode(lighter, pictures[part]))
    return rebuilt

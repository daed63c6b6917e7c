"""The stage `measure`: the network that evaluation measures with."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lib_hellomeme.training.autoencoder import UNSEEN, load_vae, unseen_people
from lib_hellomeme.training.data import PeopleStream, Request
from lib_hellomeme.training.diffusion import seeded
from lib_hellomeme.training.loop import Recipe, Run, save_network
from lib_hellomeme.training.measure import MeasuringNetwork, fit_size, measuring_loss, own_error
from lib_hellomeme.training.pool import sheet, to_pictures, to_tensor

FILE = "measure.safetensors"


class MeasureStage:
    """Renderings, a quarter of them through the VAE, because what is drawn has been through it, with a little noise."""

    def __init__(self, recipe: Recipe, run: Run) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.run = recipe, run
        self.vae = load_vae(run.folder, run.device)
        self.networks = MeasuringNetwork()
        self.stream = PeopleStream(Request(recipe.seed, recipe.size, views=1), recipe.batch, run.workers)

    def loss(self, step: int) -> Tensor:
        people = self.stream.batch(step)
        generator = seeded(self.recipe.seed, step)
        pictures = to_tensor(np.concatenate([person.pictures for person in people]))
        gain = 1 + 0.05 * torch.randn(len(pictures), 3, 1, 1, generator=generator)
        noise = torch.randn(pictures.shape, generator=generator)
        strength = 0.06 * torch.rand(len(pictures), 1, 1, 1, generator=generator)
        pictures = pictures.to(self.run.device)
        part = math.ceil(len(pictures) / 4)
        pictures = torch.cat([self._rebuilt(pictures[:part]), pictures[part:]])
        changed = pictures * gain.to(pictures) + (strength * noise).to(pictures)
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

    @torch.no_grad()
    def _rebuilt(self, pictures: Tensor) -> Tensor:
        return self.vae.decode(self.vae.encode(pictures).latent_dist.mean).sample.clamp(-1, 1).to(pictures)

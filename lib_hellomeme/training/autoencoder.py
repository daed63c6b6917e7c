"""The stage `vae`: pictures to latents of an eighth of their size, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from lib_hellomeme.errors import MissingFileError
from lib_hellomeme.training.beginnings import begin_with_colours
from lib_hellomeme.training.data import Person, Request, counted, draw_people, feature_weights
from lib_hellomeme.training.diffusion import seeded
from lib_hellomeme.training.loop import EVEN_RATES, Recipe, Run, save_network
from lib_hellomeme.training.models import frozen, new_vae, normalise_latents, posterior, rebuild, without_silent_resnets
from lib_hellomeme.training.pool import sheet, to_pictures, to_tensor

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

KL_WEIGHT = 1e-4
EDGE_WEIGHT = 1.0
COMICS = 0.2  # share of the pictures in the style that the LoRA learns later
CROPPED = 0.85  # share of the steps, the first ones, that see quarters of pictures; the others see whole ones
CROPS = 2  # quarters of each picture
SCALED_BY = 64  # unseen people whose latents are brought to the scale
UNSEEN = 1 << 20  # added to seeds for validation
FILE = "vae.safetensors"


class VaeStage:
    """Mean absolute error of pixels and of their differences, small features weighted up, and a little KL.

    A step sees as many pixels as `batch` quarters of a picture have.
    """

    weights = staticmethod(feature_weights)
    """What places count in the loss, by their regions."""

    def __init__(self, recipe: Recipe, run: Run) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.run, self.rates = recipe, run, EVEN_RATES
        self.vae = self.begin()
        self.networks: nn.Module = self.vae
        request = Request(recipe.seed, recipe.size, views=1, comic=True)
        self.people = list(counted(draw_people(request, range(recipe.people), run.workers), recipe.people))

    def begin(self) -> AutoencoderKL:
        return begin_with_colours(without_silent_resnets(new_vae()))

    def loss(self, step: int) -> Tensor:
        cropped = step < CROPPED * self.recipe.steps
        pictures, weights = self._chosen(max(1, self.recipe.batch // (CROPS if cropped else 4)), step)
        if cropped:
            pictures, weights = self._quarters(pictures, weights, step)
        seen = posterior(self.vae, pictures)
        noise = torch.randn(seen.mean.shape, generator=seeded(self.recipe.seed, step)).to(pictures.device)
        rebuilt = rebuild(self.vae, seen.mean + seen.std * noise)
        return rebuilding_error(rebuilt, pictures, weights) + KL_WEIGHT * seen.kl().mean() / seen.mean[0].numel()

    def validate(self) -> np.ndarray:
        pictures, _ = self._batch(unseen_people(self.recipe, 8), 0)
        rebuilt = rebuild(self.vae, posterior(self.vae, pictures).mean)
        return sheet([to_pictures(pictures), to_pictures(rebuilt)])

    def export(self) -> list[Path]:
        """The VAE alone, under diffusers' names; its latents are brought to the scale that SD1.5's have."""
        vae = frozen(with_silent_resnets(self.vae), self.run.device)
        pictures, _ = self._batch(unseen_people(self.recipe, SCALED_BY), 0)
        latents = torch.cat([posterior(vae, part).mean for part in pictures.split(8)])
        normalise_latents(vae, latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3)))
        return self.save(vae)

    def save(self, vae: AutoencoderKL) -> list[Path]:
        """For the stages that follow; see `load_vae`."""
        path = self.run.folder / self.recipe.stage / FILE
        save_network(path, vae)
        return [path]

    def _chosen(self, count: int, step: int) -> tuple[Tensor, Tensor]:
        """`_batch` of so many people, a step's."""
        chosen = np.random.default_rng([self.recipe.seed, step, 2]).integers(len(self.people), size=count)
        return self._batch([self.people[index] for index in chosen], step)

    def _quarters(self, pictures: Tensor, weights: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """CROPS squares of half the side from each, anywhere: the middle, where the face is, lies in all of them."""
        side = self.recipe.size // 2
        pictures, weights = (whole.repeat_interleave(CROPS, dim=0) for whole in (pictures, weights))
        places = np.random.default_rng([self.recipe.seed, step, 1]).integers(side + 1, size=(len(pictures), 2))
        cropped = [
            torch.stack([each[:, y : y + side, x : x + side] for each, (y, x) in zip(whole, places, strict=True)])
            for whole in (pictures, weights)
        ]
        return cropped[0], cropped[1]

    def _batch(self, people: list[Person], step: int) -> tuple[Tensor, Tensor]:
        """Pictures (n, 3, H, W) in [-1, 1] and weights (n, 1, H, W)."""
        comics = np.random.default_rng([self.recipe.seed, step]).random(len(people)) < COMICS
        pictures = [
            person.comic if inked and person.comic is not None else person.pictures
            for person, inked in zip(people, comics, strict=True)
        ]
        weights = np.concatenate([self.weights(person.regions) for person in people])[:, None]
        device = self.run.device
        return to_tensor(np.concatenate(pictures)).to(device), torch.from_numpy(weights).to(device)


def unseen_people(recipe: Recipe, count: int, views: int = 1, comic: bool = True) -> list[Person]:
    """People that the run is not trained on."""
    request = Request(recipe.seed + UNSEEN, recipe.size, views, comic)
    return list(draw_people(request, range(count)))


def with_silent_resnets(lighter: AutoencoderKL) -> AutoencoderKL:
    """The whole network that computes the same as what `without_silent_resnets` gave."""
    vae = new_vae()
    vae.load_state_dict({**vae.state_dict(), **lighter.state_dict()})
    return vae


def rebuilding_error(rebuilt: Tensor, pictures: Tensor, weights: Tensor) -> Tensor:
    """Of pictures (n, 3, H, W), weighted by place (n, 1, H, W), and of their edges."""
    return (weights * (rebuilt - pictures).abs()).mean() + EDGE_WEIGHT * edge_error(rebuilt, pictures)


def edge_error(pictures: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error of the differences between neighbours, (n, 3, H, W) each."""
    return sum(
        (F.l1_loss(pictures.diff(dim=axis), truth.diff(dim=axis)) for axis in (2, 3)), start=pictures.new_zeros(())
    )


def load_vae(folder: Path, device: torch.device, stage: str = "decoder") -> AutoencoderKL:
    """What the stage `decoder`, or `vae`, has exported, frozen. Raises MissingFileError before that."""
    path = folder / stage / FILE
    if not path.is_file():
        raise MissingFileError(f"{path.parent} holds no {path.name}: train the stage {stage} first")
    vae = new_vae()
    vae.load_state_dict(load_file(path))
    return frozen(vae.float(), device)

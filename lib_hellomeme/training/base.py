"""The stage `base`: text encoder and UNet learn to draw people from captions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from lib_hellomeme.training.autoencoder import load_vae, unseen_people
from lib_hellomeme.training.data import Request, draw_pairs, draw_person
from lib_hellomeme.training.diffusion import STEPS, add_noise, ddim, guided, seeded, velocity_loss
from lib_hellomeme.training.loop import EVEN_RATES, Recipe, Run
from lib_hellomeme.training.models import CheckpointTools, Model, NewModel, new_text_encoder, new_unet
from lib_hellomeme.training.pool import Pool, decode, make_pool, sheet

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

CAPTION_DROP = 0.1
GUIDANCE = 4.0
SAMPLING_STEPS = 20
CHECKPOINT = "drawn-people.safetensors"


class BaseStage:
    """Ho et al. (2020) with captions dropped now and then, for guidance."""

    def __init__(self, recipe: Recipe, run: Run, tools: CheckpointTools) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.run, self.tools, self.rates = recipe, run, tools, EVEN_RATES
        self.vae = load_vae(run.folder, run.device)
        self.pool = people_pool(recipe, run, tools, self.vae)
        self.unet, self.text_encoder = new_unet(), new_text_encoder()
        self.networks = nn.ModuleDict({"unet": self.unet, "text_encoder": self.text_encoder})
        self.empty = torch.tensor(tools.tokens(""))

    def loss(self, step: int) -> Tensor:
        latents, tokens, _ = chosen_views(self.pool, self.recipe, step)
        generator = seeded(self.recipe.seed, step)
        noise, timestep = torch.randn(latents.shape, generator=generator), random_timesteps(len(latents), generator)
        drop = torch.rand(len(latents), generator=generator) < CAPTION_DROP
        tokens = torch.where(drop[:, None], self.empty, tokens)
        latents, noise, timestep, tokens = (value.to(self.run.device) for value in (latents, noise, timestep, tokens))
        context = self.text_encoder(tokens).last_hidden_state
        predicted = self.unet(add_noise(latents, noise, timestep), timestep, context).sample
        return velocity_loss(predicted, latents, noise, timestep)

    def validate(self) -> np.ndarray:
        """Unseen people above, what their captions make of noise below."""
        people = unseen_people(self.recipe, 8)
        model = NewModel(self.unet, self.vae, self.text_encoder)
        drawn = draw_captions(model, self.tools, [person.identity.caption for person in people], self.recipe)
        return sheet([np.concatenate([person.pictures for person in people]), drawn])

    def export(self) -> list[Path]:
        """The single-file checkpoint."""
        path = self.run.folder / CHECKPOINT
        self.tools.write(path, NewModel(self.unet, self.vae, self.text_encoder))
        return [path]


def people_pool(
    recipe: Recipe, run: Run, tools: CheckpointTools, vae: AutoencoderKL, comic: bool = False, pairs: bool = False
) -> Pool:
    """The pool of a run, kept in its folder for the other stages; of comics, or of views in pairs of one pose."""
    request = Request(recipe.seed, recipe.size, recipe.views, comic)
    path = run.folder / f"{'comics' if comic else 'pairs' if pairs else 'people'}.safetensors"
    draw_one = draw_pairs if pairs else draw_person
    return make_pool(path, request, recipe.people, vae, tools.tokens, run.workers, draw_one)


def draw_captions(model: Model, tools: CheckpointTools, captions: list[str], recipe: Recipe) -> np.ndarray:
    """Pictures (n, size, size, 3), RGB uint8, by plain text-to-image."""
    tokens = torch.tensor([tools.tokens(caption) for caption in ["", *captions]])
    encoded = model.text_encoder(tokens.to(model.unet.device)).last_hidden_state
    context = torch.cat([encoded[:1].expand_as(encoded[1:]), encoded[1:]])

    def predict(latents: Tensor, timestep: Tensor) -> Tensor:
        return guided(model.unet(latents.repeat(2, 1, 1, 1), timestep.repeat(2), context).sample, GUIDANCE)

    side = recipe.size // 8
    noise = torch.randn(len(captions), 4, side, side, generator=seeded(recipe.seed))
    return decode(model.vae, ddim(predict, noise.to(model.unet.device), SAMPLING_STEPS))


def chosen_views(
    pool: Pool, recipe: Recipe, step: int, together: int = 1
) -> tuple[Tensor, Tensor, tuple[np.ndarray, np.ndarray]]:
    """A step's latents (n, 4, h, w), tokens (n, 77), and where in the pool they stand: people (n,), views (n,).

    So many neighbouring views of a person are chosen together.
    """
    generator, count = np.random.default_rng([recipe.seed, step]), recipe.batch // together
    people = generator.integers(len(pool.latents), size=count).repeat(together)
    first = together * generator.integers(pool.latents.shape[1] // together, size=count)
    views = (first[:, None] + np.arange(together)).reshape(-1)
    return pool.latents[people, views].float(), pool.tokens[people], (people, views)


def random_timesteps(count: int, generator: torch.Generator) -> Tensor:
    """(count,) spread evenly over 0 to STEPS - 1, in a random order: the loss varies less from step to step."""
    places = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
    return (places * STEPS).long().clamp(max=STEPS - 1)

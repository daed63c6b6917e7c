"""The stage `style`: a LoRA that inks what the base model draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lib_hellomeme.training.autoencoder import unseen_people
from lib_hellomeme.training.base import CHECKPOINT, chosen_views, draw_captions, people_pool, random_timesteps
from lib_hellomeme.training.diffusion import add_noise, seeded, velocity_loss
from lib_hellomeme.training.loop import EVEN_RATES, Recipe, Run, replacing
from lib_hellomeme.training.models import CheckpointTools, frozen_model
from lib_hellomeme.training.pool import sheet

RANK = 4
FILE = "comic.safetensors"


class LowRank(nn.Module):
    """What is added to one linear layer: up(down(x)) (Hu et al. 2021), nothing at first."""

    def __init__(self, layer: nn.Linear, rank: int = RANK) -> None:
        super().__init__()
        self.lora_down = nn.Linear(layer.in_features, rank, bias=False)
        self.lora_up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.zeros_(self.lora_up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.lora_up(self.lora_down(x))


class StyleStage:
    """The base model's loss on inked pictures; only the low-rank pairs learn."""

    def __init__(self, recipe: Recipe, run: Run, tools: CheckpointTools) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.run, self.tools, self.rates = recipe, run, tools, EVEN_RATES
        self.model = frozen_model(tools.read(run.folder / CHECKPOINT), run.device)
        self.pool = people_pool(recipe, run, tools, self.model.vae, comic=True)
        self.networks = attach_lora(self.model.unet)

    def loss(self, step: int) -> Tensor:
        device = self.run.device
        latents, tokens, _ = chosen_views(self.pool, self.recipe, step)
        generator = seeded(self.recipe.seed, step)
        noise, timestep = torch.randn(latents.shape, generator=generator), random_timesteps(len(latents), generator)
        latents, noise, timestep = latents.to(device), noise.to(device), timestep.to(device)
        context = self.model.text_encoder(tokens.to(device)).last_hidden_state
        predicted = self.model.unet(add_noise(latents, noise, timestep), timestep, context).sample
        return velocity_loss(predicted, latents, noise, timestep)

    def validate(self) -> np.ndarray:
        """Unseen people as comics above, what their captions make of noise below."""
        people = unseen_people(self.recipe, 8)
        drawn = draw_captions(self.model, self.tools, [person.identity.caption for person in people], self.recipe)
        return sheet([np.concatenate([person.comic for person in people if person.comic is not None]), drawn])

    def export(self) -> list[Path]:
        """kohya's names, which every webui reads."""
        tensors = {}
        for name, pair in self.networks.items():
            tensors[f"{name}.alpha"] = torch.tensor(float(RANK))
            for key, value in pair.state_dict().items():
                tensors[f"{name}.{key}"] = value.half().cpu().contiguous()
        path = self.run.folder / FILE
        with replacing(path) as temporary:
            save_file(tensors, temporary)
        return [path]


def attach_lora(unet: nn.Module) -> nn.ModuleDict:
    """Pairs for the linear layers of all transformer blocks, by kohya's names; they act from now on."""
    pairs = nn.ModuleDict()
    for name, layer in unet.named_modules():
        if isinstance(layer, nn.Linear) and ".transformer_blocks." in name:
            pair = LowRank(layer)
            pairs[f"lora_unet_{name.replace('.', '_')}"] = pair
            layer.register_forward_hook(lambda module, args, output, pair=pair: output + pair(args[0]))
    return pairs

"""The stage `joint`: reference and control's projection go on together, as a recipe has them act.

Alone, each learns beside what it cannot know: control with people whose looks are guessed, the reference with heads
that are only about where they should be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lib_hellomeme.training import control, reference
from lib_hellomeme.training.adapters import (
    BEFORE,
    CONTROL_PROJECTION_FILE,
    REFERENCE_FILE,
    AdapterStage,
    Batch,
    Heads,
    load_adapters,
)
from lib_hellomeme.training.beginnings import rates_by_size
from lib_hellomeme.training.data import Person
from lib_hellomeme.training.diffusion import latents_loss
from lib_hellomeme.training.loop import Recipe, Run, save_network
from lib_hellomeme.training.models import CheckpointTools
from lib_hellomeme.unet.port import Begin, Call, Tap

LAST_LAYERS = 5.0  # how much faster the layers that add to the UNet learn


class JointStage(AdapterStage):
    error = staticmethod(latents_loss)
    caption_drop = reference.CAPTION_DROP

    def __init__(self, recipe: Recipe, run: Run, tools: CheckpointTools) -> None:
        super().__init__(recipe, run, tools)
        self.adapters = load_adapters(run.folder, run.device, stages=BEFORE)
        trained = (self.adapters.reference, self.adapters.control.projection)
        self.networks = nn.ModuleList(trained).requires_grad_(True)
        last = (*reference.last_layers(trained[0]), *control.last_layers(trained[1]))
        self.rates = rates_by_size(self.networks, dict.fromkeys(last, LAST_LAYERS))

    def predict(self, batch: Batch, step: int) -> Tensor:
        bank = reference.write_reference(self.port, self.adapters, *self.written(batch, step))
        return reference.predict_velocity(self.port, self.adapters, batch.call, bank, self.heads(batch, batch.views))

    def written(self, batch: Batch, step: int) -> tuple[Call, Heads]:
        """What `write_reference` takes: the batch's people in other views, under the batch's own prompts."""
        further = np.random.default_rng([self.recipe.seed, step, 1]).integers(1, self.recipe.views, len(batch.views))
        others = (batch.views + further) % self.recipe.views
        shown = self.pool.latents[batch.people, others].float()
        shown = torch.where(batch.uncond[:, None, None, None], 0.0, shown).to(self.run.device)
        call = replace(batch.call, sample=shown, timestep=torch.zeros_like(batch.call.timestep))
        return call, self.heads(batch, others)

    def drawing(self, person: Person) -> tuple[Sequence[Tap], Begin | None]:
        return reference.reenactment(self.port, self.adapters, self.model.vae, person, self.run.device)

    def export(self) -> list[Path]:
        """The published files' tensors, float16."""
        paths = [self.run.folder / f"{name}.safetensors" for name in (REFERENCE_FILE, CONTROL_PROJECTION_FILE)]
        for path, network in zip(paths, (self.adapters.reference, self.adapters.control.projection), strict=True):
            save_network(path, network)
        return paths

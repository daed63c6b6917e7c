"""The stage `joint`: reference and control's projection go on together, as a recipe has them act.

Alone, each learns beside what it cannot know: control with people whose looks are guessed, the reference with heads
that are only about where they should be.

Two views that differ in nothing but the expression are denoised from the same noise, and what differs in the result
counts more. Little of the picture is brows and smiles, so little of the loss is; but what is still unknown about the
person, by far the most of it, is the same in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lib_hellomeme.errors import SettingsError
from lib_hellomeme.taps.bank import Bank
from lib_hellomeme.training import control, reference
from lib_hellomeme.training.adapters import (
    BEFORE,
    CONTROL_PROJECTION_FILE,
    REFERENCE_FILE,
    AdapterStage,
    Batch,
    Heads,
    heads_of,
    load_adapters,
)
from lib_hellomeme.training.beginnings import rates_by_size
from lib_hellomeme.training.data import Person
from lib_hellomeme.training.diffusion import STEPS, velocity, weighted_mean
from lib_hellomeme.training.loop import Recipe, Run, save_network
from lib_hellomeme.training.models import CheckpointTools
from lib_hellomeme.unet.port import Begin, Call, Rows, Tap

LAST_LAYERS = 10.0  # how much faster the layers that add to the UNet learn
REFERENCE = 0.3  # how much slower the reference network goes on than control's projection
# Weight of the difference of two expressions, in which errors are a tenth of those in what both share. In 4000 steps
# the correlations of smiles and brows with the driver's, measured in what is drawn, went from 0.65 and 0.55 to 0.78
# and 0.75, while the identity error went from 0.17 to 0.22 (without a gradient through the write pass).
CONTRAST = 10.0
PURE = 850  # rows at this timestep and above are as drawing begins


def check_pairs(recipe: Recipe) -> None:
    """Raises SettingsError where rows cannot be in pairs, or the reference in another pose."""
    if recipe.batch % 2 or recipe.views % 2 or recipe.views < 4:
        raise SettingsError(f"--batch and --views of the stage {recipe.stage} must be even, and --views at least 4")


def pairs_loss(predicted: Tensor, latents: Tensor, noise: Tensor, timestep: Tensor, weight: Tensor) -> Tensor:
    """`velocity_loss` of rows in pairs, in which their difference has the weight CONTRAST and not 1."""
    errors = predicted.float() - velocity(latents, noise, timestep)
    one, other = errors[::2], errors[1::2]
    squares = ((one + other) / 2).square() + CONTRAST * ((one - other) / 2).square()
    return weighted_mean(squares, weight[::2])


def with_pure_noise(batch: Batch, first: int) -> Batch:
    """Rows at this timestep and above become all noise, at the last timestep.

    Drawing begins with pure noise, training at the last timestep with 7 % of the picture in it, from which the base
    model has learned to tell colours (Lin et al. 2023, section 3.1). In pure noise it sees the wrong ones.
    """
    pure = batch.call.timestep >= first
    sample = torch.where(pure[:, None, None, None], batch.noise, batch.call.sample)
    timestep = batch.call.timestep.masked_fill(pure, STEPS - 1)
    return batch._replace(call=replace(batch.call, sample=sample, timestep=timestep))


class JointStage(AdapterStage):
    error = staticmethod(pairs_loss)
    caption_drop = reference.CAPTION_DROP
    a_pose = 2
    stages: Mapping[str, str] = BEFORE
    """Whose networks go on."""

    def __init__(self, recipe: Recipe, run: Run, tools: CheckpointTools) -> None:
        check_pairs(recipe)
        super().__init__(recipe, run, tools)
        self.adapters = load_adapters(run.folder, run.device, stages=self.stages)
        self.reference, self.projection = self.adapters.reference, self.adapters.control.projection
        self.networks = nn.ModuleList(self.parts().values()).requires_grad_(True)
        self.rates = self.begin()

    def parts(self) -> dict[str, nn.Module]:
        """What learns, by the files that hold it."""
        return {REFERENCE_FILE: self.reference, CONTROL_PROJECTION_FILE: self.projection}

    def begin(self) -> Mapping[nn.Parameter, float]:
        """Learning rates."""
        last = (*reference.last_layers(self.reference), *control.last_layers(self.projection))
        faster = dict.fromkeys(last, LAST_LAYERS)
        slower = {parameter: REFERENCE * rate for parameter, rate in rates_by_size(self.reference, faster).items()}
        return {**slower, **rates_by_size(self.projection, faster)}

    def batch(self, recipe: Recipe, step: int) -> Batch:
        return with_pure_noise(super().batch(recipe, step), PURE)

    def predict(self, batch: Batch, step: int) -> Tensor:
        bank = {site: hidden.repeat_interleave(2, dim=0) for site, hidden in self.write(batch, step).items()}
        return reference.predict_velocity(self.port, self.adapters, batch.call, bank, self.heads(batch, batch.views))

    def write(self, batch: Batch, step: int) -> Bank:
        """Of each pair's person, shown in another pose."""
        return reference.write_reference(self.port, self.adapters, *self.given(batch, step))

    def given(self, batch: Batch, step: int) -> tuple[Call, Heads]:
        """What `write_reference` takes."""
        one = slice(None, None, 2)
        people, views, uncond, call = batch.people[one], batch.views[one], batch.uncond[one], batch.call
        further = np.random.default_rng([self.recipe.seed, step, 1]).integers(2, self.recipe.views, len(views))
        others = (views + further) % self.recipe.views
        shown = torch.where(uncond[:, None, None, None], 0.0, self.pool.latents[people, others].float())
        written = Call(
            shown.to(self.run.device),
            torch.zeros_like(call.timestep[one]),
            call.context[one],
            Rows(call.rows.uncond[one]),
        )
        return written, heads_of(self.pool, people, others, uncond, self.recipe.size).to(self.run.device)

    def drawing(self, person: Person) -> tuple[Sequence[Tap], Begin | None]:
        return reference.reenactment(self.port, self.adapters, self.model.vae, person, self.run.device)

    def export(self) -> list[Path]:
        """The published files' tensors, float16, for the stages that follow."""
        return self.save(self.run.folder / self.recipe.stage)

    def save(self, folder: Path) -> list[Path]:
        paths = []
        for name, network in self.parts().items():
            paths.append(folder / f"{name}.safetensors")
            save_network(paths[-1], network)
        return paths

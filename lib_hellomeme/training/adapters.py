"""What the stages `control`, `reference` and `joint` share: the base model frozen, what a step is given, and files.

Control learns first, by itself; the reference learns with control as it then is; then both go on together; then the
reference alone; and at last both once more, with the base of control.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lib_hellomeme.errors import MissingFileError
from lib_hellomeme.face.camera import head_rectangle
from lib_hellomeme.face.condition import condition_input
from lib_hellomeme.networks.expression import ArkitExpression
from lib_hellomeme.recipes.hellomeme import ControlNetwork
from lib_hellomeme.taps.residual import add_residual
from lib_hellomeme.training.autoencoder import unseen_people
from lib_hellomeme.training.base import (
    CHECKPOINT,
    GUIDANCE,
    SAMPLING_STEPS,
    chosen_views,
    people_pool,
    random_timesteps,
)
from lib_hellomeme.training.data import Person
from lib_hellomeme.training.diffusion import add_noise, ddim, guided, seeded
from lib_hellomeme.training.loop import Recipe, Run
from lib_hellomeme.training.models import Adapters, CheckpointTools, frozen_model
from lib_hellomeme.training.pool import Pool, decode, sheet
from lib_hellomeme.unet.diffusers import DiffusersPort
from lib_hellomeme.unet.port import Begin, Call, Rows, Tap

UNCOND_DROP = 0.1  # rows as guidance's other side sees them: no caption, no reference, nobody's control
FACE_WEIGHT = 3.0  # of the face in the loss: a seventh of the latents, in which every expression has to show
SHOWN = 6  # people on the sheet
REFERENCE_FILE, CONTROL_BASE_FILE, CONTROL_PROJECTION_FILE = "hm5c_reference", "hm5_control_base", "hm5c_control_proj"
FILES = (REFERENCE_FILE, CONTROL_BASE_FILE, CONTROL_PROJECTION_FILE)
LAST = "finish"  # the stage that makes what users load
BEFORE = {REFERENCE_FILE: "reference", CONTROL_BASE_FILE: "control_base", CONTROL_PROJECTION_FILE: "control"}
"""The stages that make what `joint` goes on with; it lies in their folders."""

Error = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""Predicted velocities, latents, noise, timestep, weight to a loss."""


class Heads(NamedTuple):
    """What control is made of: condition (n, 3, H, W) in [-1, 1], coefficients (n, 51)."""

    condition: Tensor
    coefficients: Tensor

    def to(self, device: torch.device) -> Heads:
        return Heads(self.condition.to(device), self.coefficients.to(device))

    @property
    def expression(self) -> ArkitExpression:
        """Drawn people have no photos of face parts."""
        return ArkitExpression(self.coefficients, self.coefficients.new_zeros(len(self.coefficients), 3, 1024))


class Batch(NamedTuple):
    """What a step denoises: latents (n, 4, h, w), the noise in them, and where they matter, weight (n, 1, h, w).

    `people` and `views` (n,) tell where in the pool they stand.
    """

    call: Call
    latents: Tensor
    noise: Tensor
    weight: Tensor
    people: np.ndarray
    views: np.ndarray

    @property
    def uncond(self) -> Tensor:
        return torch.tensor(self.call.rows.uncond)


class AdapterStage(ABC):
    """The loss is `error`, in which faces weigh more."""

    error: Error
    caption_drop: float  # share of rows that lose the caption alone
    a_pose = 1  # neighbouring views of a person in the pool that share all but the expression
    networks: nn.Module
    rates: Mapping[nn.Parameter, float]

    def __init__(self, recipe: Recipe, run: Run, tools: CheckpointTools) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.run, self.tools = recipe, run, tools
        self.model = frozen_model(tools.read(run.folder / CHECKPOINT), run.device)
        self.port = DiffusersPort(self.model.unet)
        self.pool = people_pool(recipe, run, tools, self.model.vae, pairs=self.a_pose > 1)
        self.empty = torch.tensor(tools.tokens(""))

    @abstractmethod
    def predict(self, batch: Batch, step: int) -> Tensor:
        """Velocities (n, 4, h, w), with a graph back to `networks`."""

    def together(self, step: int) -> int:
        """So many rows of a step are of one person in one pose, with one noise."""
        return self.a_pose

    def timesteps(self, step: int, timestep: Tensor) -> Tensor:
        """A step's; timestep (n,) is spread over all there are."""
        return timestep

    @abstractmethod
    def drawing(self, person: Person) -> tuple[Sequence[Tap], Begin | None]:
        """What acts while this person is drawn in view 1, and what begins it, for the rows (uncond, cond)."""

    def loss(self, step: int) -> Tensor:
        return self.loss_of(self.batch(self.recipe, step), step)

    def loss_of(self, batch: Batch, step: int) -> Tensor:
        predicted = self.predict(batch, step)
        return self.error_at(step)(predicted, batch.latents, batch.noise, batch.call.timestep, batch.weight)

    def error_at(self, step: int) -> Error:
        """A step's."""
        return self.error

    def batch(self, recipe: Recipe, step: int) -> Batch:
        device, together = self.run.device, self.together(step)
        latents, tokens, (people, views) = chosen_views(self.pool, recipe, step, together)
        generator = seeded(recipe.seed, step)
        noise = torch.randn(latents[::together].shape, generator=generator)
        timestep = self.timesteps(step, random_timesteps(len(noise), generator))
        chance = torch.rand(len(noise), generator=generator)
        noise, timestep, chance = (value.repeat_interleave(together, dim=0) for value in (noise, timestep, chance))
        uncond = chance < UNCOND_DROP
        tokens = torch.where((chance < UNCOND_DROP + self.caption_drop)[:, None], self.empty, tokens)
        poses = self.pool.rotations[people, views], self.pool.translations[people, views]
        weight = face_weight(*poses, latents.shape[-1])
        latents, noise, timestep, weight = (value.to(device) for value in (latents, noise, timestep, weight))
        with torch.no_grad():
            context = self.model.text_encoder(tokens.to(device)).last_hidden_state
        call = Call(add_noise(latents, noise, timestep), timestep, context, Rows(tuple(uncond.tolist())))
        return Batch(call, latents, noise, weight, people, views)

    def heads(self, batch: Batch, views: np.ndarray) -> Heads:
        """Of the batch's people in these views, nobody's where uncond."""
        size = batch.latents.shape[-1] * 8
        return heads_of(self.pool, batch.people, views, batch.uncond, size).to(self.run.device)

    def validate(self) -> np.ndarray:
        """Unseen people in two views, and below, what the networks make of the second one."""
        people = unseen_people(self.recipe, SHOWN, views=2)
        drawn = [self._draw(person, index) for index, person in enumerate(people)]
        return sheet(
            [*(np.stack([person.pictures[view] for person in people]) for view in (0, 1)), np.concatenate(drawn)]
        )

    def _draw(self, person: Person, index: int) -> np.ndarray:
        """(1, size, size, 3)"""
        device, model = self.run.device, self.model
        tokens = torch.stack([self.empty, torch.tensor(self.tools.tokens(person.identity.caption))])
        context = model.text_encoder(tokens.to(device)).last_hidden_state

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            return guided(model.unet(latents.repeat(2, 1, 1, 1), timestep.repeat(2), context).sample, GUIDANCE)

        def describe(sample: Tensor, timestep: Tensor, context: Tensor, options: Mapping[str, object]) -> Call:
            return Call(sample, timestep, context, Rows((True, False)))

        side = self.recipe.size // 8
        noise = torch.randn(1, 4, side, side, generator=seeded(self.recipe.seed, index)).to(device)
        taps, begin = self.drawing(person)
        with self.port.attach(taps, describe, begin):
            return decode(model.vae, ddim(predict, noise, SAMPLING_STEPS))


def face_weight(rotations: Tensor, translations: Tensor, side: int) -> Tensor:
    """(n, 1, side, side): FACE_WEIGHT in the head rectangles of these poses, (n, 3) each, and 1 around them."""
    weights = np.ones((len(rotations), 1, side, side), np.float32)
    for weight, rotation, translation in zip(weights, rotations.numpy(), translations.numpy(), strict=True):
        corners = head_rectangle(rotation, translation, side, side)
        cv2.fillConvexPoly(weight[0], np.round(corners).astype(np.int32), (FACE_WEIGHT,))
    return torch.from_numpy(weights)


def heads_of(pool: Pool, people: np.ndarray, views: np.ndarray, uncond: Tensor, size: int) -> Heads:
    """Control's input for these views, nobody's where uncond; size px."""
    rotations, translations = pool.rotations[people, views], pool.translations[people, views]
    drawn = [
        torch.from_numpy(condition_input(rotation, translation, size, size))
        for rotation, translation in zip(rotations.numpy(), translations.numpy(), strict=True)
    ]
    condition = torch.where(uncond[:, None, None, None], -1.0, torch.stack(drawn))
    return Heads(condition, torch.where(uncond[:, None], 0.0, pool.coefficients[people, views]))


def control_of(control: ControlNetwork, heads: Heads) -> dict[str, Tensor]:
    return control(heads.condition, heads.expression)


def add_control(control: Mapping[str, Tensor]) -> Sequence[Tap]:
    return [add_residual(site, lambda call, site=site: control[site]) for site in control]


def load_adapters(
    folder: Path, device: torch.device, names: Sequence[str] = FILES, stages: Mapping[str, str] | None = None
) -> Adapters:
    """What the stages have exported, frozen; networks that are not in `names` are new ones. Files in `stages` (BEFORE)
    are those in the folders of these stages.

    Raises MissingFileError before they have.
    """
    networks, stages = Adapters(), stages or {}
    for name, network in zip(FILES, networks.parts(), strict=True):
        if name not in names:
            continue
        path = folder / stages.get(name, "") / f"{name}.safetensors"
        if not path.is_file():
            stage = stages.get(name, LAST)
            raise MissingFileError(f"{path.parent} holds no {path.name}: train the stage {stage} first")
        network.load_state_dict(load_file(path))
    return networks.to(device).eval().requires_grad_(False)

"""The stage `adapters`: v5c's reference and control networks, the base model frozen.

Two views of one person: the first is the reference, the second is drawn from noise, with the control of its own pose
and expression. The taps stand where the recipe's stand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from lib_hellomeme.face.track import FaceFrame
from lib_hellomeme.networks.control import KnittedProjector
from lib_hellomeme.networks.expression import ArkitExpression
from lib_hellomeme.networks.reference import ReferenceLayer, STKReference
from lib_hellomeme.recipes.hellomeme import Reenactment, control_features
from lib_hellomeme.taps.bank import Bank, record, write
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
from lib_hellomeme.training.beginnings import rates_by_size, unit_outputs
from lib_hellomeme.training.data import Person
from lib_hellomeme.training.diffusion import STEPS, add_noise, ddim, guided, latents_loss, seeded
from lib_hellomeme.training.loop import Recipe, Run, save_network
from lib_hellomeme.training.models import Adapters, CheckpointTools, silence
from lib_hellomeme.training.pool import Pool, decode, encode, sheet
from lib_hellomeme.unet.diffusers import DiffusersPort
from lib_hellomeme.unet.port import Call, Port, Rows, Tap

UNCOND_DROP = 0.1  # rows as guidance's other side sees them: no caption, no reference, nobody's control
CAPTION_DROP = 0.8  # rows that lose the caption alone: who is drawn is to be learned from the reference
# Half of a run is at the noisiest timesteps, where it is decided who is drawn and how; it reaches them all at its end.
# Where there is little noise, all that new layers add does harm: with every timestep from the first step on, they fell
# silent before they had learned anything. For the same reason the loss is that of the latents.
FIRST_TIMESTEP = 600
FALL = (0.5, 0.9)  # shares of the run between which the first timestep goes down to 0
FACE_WEIGHT = 3.0  # of the face in the loss: a seventh of the latents, in which every expression has to show
BEGINNING = 32  # rows that the first weights are fitted to
ADDED = 0.1  # what new networks add, in deviations of the UNet's features at each site
SHARP = 1.5  # deviation of new queries and keys: attention that chooses from the beginning
LAST_LAYERS = 25.0  # how much faster the layers that add to the UNet learn: what they add has to grow
FILES = ("hm5c_reference", "hm5_control_base", "hm5c_control_proj")


class Heads(NamedTuple):
    """What control is made of: condition (n, 3, H, W) in [-1, 1], coefficients (n, 51)."""

    condition: Tensor
    coefficients: Tensor

    def to(self, device: torch.device) -> Heads:
        return Heads(self.condition.to(device), self.coefficients.to(device))


class Seen(NamedTuple):
    """What is denoised, and what the networks are given: reference (n, 4, h, w), zeros where uncond."""

    call: Call
    reference: Tensor
    own: Heads  # the reference's
    target: Heads


class Batch(NamedTuple):
    """What a step sees, its latents (n, 4, h, w), the noise in them, and where they matter: weight (n, 1, h, w)."""

    seen: Seen
    latents: Tensor
    noise: Tensor
    weight: Tensor


class AdapterStage:
    """The loss is the base model's, with another view of the person as the reference."""

    def __init__(self, recipe: Recipe, run: Run, tools: CheckpointTools) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.run, self.tools = recipe, run, tools
        self.model = tools.read(run.folder / CHECKPOINT)
        for network in (self.model.unet, self.model.vae, self.model.text_encoder):
            network.to(run.device).eval().requires_grad_(False)
        self.port = DiffusersPort(self.model.unet)
        self.pool = people_pool(recipe, run, tools, self.model.vae)
        self.empty = torch.tensor(tools.tokens(""))
        self.networks = Adapters().to(run.device)
        begin_adapters(self.port, self.networks, self._batch(replace(recipe, batch=BEGINNING), recipe.steps).seen)
        faster = dict.fromkeys(last_layers(self.networks), LAST_LAYERS)
        self.rates: Mapping[nn.Parameter, float] = rates_by_size(self.networks, faster)

    def loss(self, step: int) -> Tensor:
        batch = self._batch(self.recipe, step)
        predicted = predict_velocity(self.port, self.networks, batch.seen)
        return latents_loss(predicted, batch.latents, batch.noise, batch.seen.call.timestep, batch.weight)

    def _batch(self, recipe: Recipe, step: int) -> Batch:
        device = self.run.device
        latents, tokens, (people, views) = chosen_views(self.pool, recipe, step)
        steps = np.random.default_rng([recipe.seed, step, 1]).integers(1, recipe.views, size=len(views))
        others = (views + steps) % recipe.views
        generator = seeded(recipe.seed, step)
        noise = torch.randn(latents.shape, generator=generator)
        timestep = timesteps_at(step / recipe.steps, random_timesteps(len(latents), generator))
        chance = torch.rand(len(latents), generator=generator)
        uncond = chance < UNCOND_DROP
        tokens = torch.where((chance < UNCOND_DROP + CAPTION_DROP)[:, None], self.empty, tokens)
        reference = torch.where(uncond[:, None, None, None], 0.0, self.pool.latents[people, others].float())
        with torch.no_grad():
            context = self.model.text_encoder(tokens.to(device)).last_hidden_state
        rows = Rows(tuple(uncond.tolist()))
        poses = self.pool.rotations[people, views], self.pool.translations[people, views]
        weight = face_weight(*poses, latents.shape[-1])
        latents, noise, timestep, weight = (value.to(device) for value in (latents, noise, timestep, weight))
        call = Call(add_noise(latents, noise, timestep), timestep, context, rows)
        own, target = (heads_of(self.pool, people, shown, uncond, recipe.size).to(device) for shown in (others, views))
        return Batch(Seen(call, reference.to(device), own, target), latents, noise, weight)

    def validate(self) -> np.ndarray:
        """Through the recipe, as users run it: references, drivers as the truth has them, what is drawn."""
        people = unseen_people(self.recipe, 6, views=2)
        drawn = [self._reenact(person, index) for index, person in enumerate(people)]
        return sheet(
            [*(np.stack([person.pictures[view] for person in people]) for view in (0, 1)), np.concatenate(drawn)]
        )

    def export(self) -> list[Path]:
        """The published files' tensors, float16."""
        paths = [self.run.folder / f"{name}.safetensors" for name in FILES]
        for path, network in zip(paths, self.networks.parts(), strict=True):
            save_network(path, network)
        return paths

    def _reenact(self, person: Person, index: int) -> np.ndarray:
        """(1, size, size, 3): the person of view 0 with the face of view 1."""
        device, model = self.run.device, self.model
        reference, (own, target) = encode(model.vae, person.pictures[:1]), person.faces
        tokens = torch.stack([self.empty, torch.tensor(self.tools.tokens(person.identity.caption))])
        context = model.text_encoder(tokens.to(device)).last_hidden_state
        control, write_control = (self._control(face) for face in (target, own))
        reenactment = Reenactment(self.port, self.networks.reference.sites(), reference, control, write_control)

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            return guided(model.unet(latents.repeat(2, 1, 1, 1), timestep.repeat(2), context).sample, GUIDANCE)

        def describe(sample: Tensor, timestep: Tensor, context: Tensor, options: Mapping[str, object]) -> Call:
            return Call(sample, timestep, context, Rows((True, False)))

        noise = torch.randn(reference.shape, generator=seeded(self.recipe.seed, index)).to(device)
        with self.port.attach(reenactment.taps(), describe, reenactment.begin):
            return decode(model.vae, ddim(predict, noise, SAMPLING_STEPS))

    def _control(self, face: FaceFrame) -> Mapping[str, Tensor]:
        return control_features(self.networks.control, [face], self.run.device, torch.float32)


def timesteps_at(share: float, timestep: Tensor) -> Tensor:
    """timestep (n,), spread over all there are, to those of a run of which this share is done."""
    start, end = FALL
    first = FIRST_TIMESTEP * min(1.0, max(0.0, (end - share) / (end - start)))
    return (first + timestep * (STEPS - first) / STEPS).long()


def face_weight(rotations: Tensor, translations: Tensor, side: int) -> Tensor:
    """(n, 1, side, side): FACE_WEIGHT in the head rectangles of these poses, (n, 3) each, and 1 around them."""
    weights = np.ones((len(rotations), 1, side, side), np.float32)
    for weight, rotation, translation in zip(weights, rotations.numpy(), translations.numpy(), strict=True):
        corners = head_rectangle(rotation, translation, side, side)
        cv2.fillConvexPoly(weight[0], np.round(corners).astype(np.int32), FACE_WEIGHT)
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


def load_adapters(folder: Path, device: torch.device) -> Adapters:
    """What the stage `adapters` has exported, frozen. Raises MissingFileError before that."""
    networks = Adapters()
    for name, network in zip(FILES, networks.parts(), strict=True):
        path = folder / f"{name}.safetensors"
        if not path.is_file():
            raise MissingFileError(f"{folder} holds no {path.name}: train the stage adapters first")
        network.load_state_dict(load_file(path))
    return networks.to(device).eval().requires_grad_(False)


@torch.no_grad()
def begin_adapters(port: Port, networks: Adapters, seen: Seen) -> None:
    """First weights that hand on what they are given, in `seen`, and add a little of it to the UNet's features."""
    bank: Bank = {}
    projectors = networks.control.projection.sites()
    port.run(seen.call, [record(site, bank) for site in projectors])
    added = {
        site: ADDED * float((hidden - hidden.mean(dim=(0, 2, 3), keepdim=True)).std()) for site, hidden in bank.items()
    }
    deviations: dict[nn.Module, float] = {
        layer: SHARP for name, layer in networks.named_modules() if name.endswith(("to_q", "to_k"))
    }
    deviations |= {layer: added[site] for layer, site in last_layers(networks).items()}
    for layer in networks.reference.sites().values():
        assert isinstance(layer, STKReference)
        for attention in (layer.attn_ref.attnx, layer.attn_ref.attny):
            attention.to_k.load_state_dict(attention.to_q.state_dict())  # each place of the reference asks for itself
    silence(networks.control.base.face_proj.linear_2)  # drawn people have no photos of face parts
    with unit_outputs(networks, deviations):
        predict_velocity(port, networks, seen)


def last_layers(networks: Adapters) -> dict[nn.Module, str]:
    """What adds to the UNet's features, with its site."""
    layers: dict[nn.Module, str] = {}
    for site, projector in networks.control.projection.sites().items():
        assert isinstance(projector, KnittedProjector)
        layers |= {projector.proj: site, projector.attn.proj: site}
    for site, layer in networks.reference.sites().items():
        assert isinstance(layer, STKReference)
        layers[layer.attn.proj] = site
    return layers


def predict_velocity(port: Port, networks: Adapters, seen: Seen) -> Tensor:
    """What the UNet predicts of the call's rows under the recipe's taps, with a graph back to the networks.

    The write pass is taken as given: a gradient through it would cost a second pass back through the UNet.
    """
    call, layers = seen.call, networks.reference.sites()
    bank: Bank = {}
    with torch.no_grad():
        written = Call(seen.reference, torch.zeros_like(call.timestep), call.context, call.rows)
        control = add_control(control_of(networks, seen.own))
        write(port, written, bank, [record(site, bank) for site in layers], control)
    reads = [_read(site, layer, bank) for site, layer in layers.items()]
    return port.run(call, [*add_control(control_of(networks, seen.target)), *reads])


def control_of(networks: Adapters, heads: Heads) -> dict[str, Tensor]:
    parts = heads.coefficients.new_zeros(len(heads.coefficients), 3, 1024)
    return networks.control(heads.condition, ArkitExpression(heads.coefficients, parts))


def add_control(control: Mapping[str, Tensor]) -> Sequence[Tap]:
    return [add_residual(site, lambda call, site=site: control[site]) for site in control]


def _read(site: str, layer: ReferenceLayer, bank: Bank) -> Tap:
    return Tap(site, lambda hidden, call: hidden + layer.read(hidden, layer.prepare(bank[site])))

"""The stage `reference`: v5c's reference network, from two views of one person, with control as it is.

The first view is the reference, the second is drawn from noise. The taps stand where the recipe's stand.

Beside what the UNet is to predict, the layers are taught what to read: by a linear layer at each site, which is thrown
away, the latents themselves. Through the UNet alone they learn several times slower.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lib_hellomeme.networks.reference import ReferenceAdapter, ReferenceLayer, STKReference
from lib_hellomeme.recipes.hellomeme import Reenactment, control_features
from lib_hellomeme.taps.bank import Bank, record, write
from lib_hellomeme.training.adapters import (
    BEFORE,
    CONTROL_BASE_FILE,
    CONTROL_PROJECTION_FILE,
    REFERENCE_FILE,
    AdapterStage,
    Batch,
    Heads,
    add_control,
    control_of,
    heads_of,
    load_adapters,
)
from lib_hellomeme.training.beginnings import ADDED, added_to, look_at_same_place, rates_by_size, unit_outputs
from lib_hellomeme.training.control_base import BEGINNING, spread
from lib_hellomeme.training.data import Person
from lib_hellomeme.training.diffusion import STEPS, latents_loss, weighted_mean
from lib_hellomeme.training.loop import Recipe, Run, save_network
from lib_hellomeme.training.models import Adapters, CheckpointTools, silence
from lib_hellomeme.training.pool import encode
from lib_hellomeme.unet.port import Begin, Call, Port, Rows, Tap

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

# Half of a run is at the noisiest timesteps, where it is decided who is drawn; it reaches them all at its end. Where
# there is little noise, the reference tells little: with every timestep from the first step on, and by the error of
# velocities, its layers learned nothing in the steps in which they learn something with this. For the same reason the
# loss is that of the latents.
FIRST_TIMESTEP = 600
FALL = (0.5, 0.9)  # shares of the run between which the first timestep goes down to 0
REFERENCES = 2  # views of each person that are references, in as many poses
WRITTEN_AT_ONCE = 32
CONTENT = 0.5  # deviation of what tokens begin with, beside their places' of about 0.7
LAST_LAYERS = 10.0  # how much faster the layers that add to the UNet learn: what they add has to grow
READOUTS = 2.0  # learning rate of the layers that latents are read by, which begin with zeros
CAPTION_DROP = 0.8  # who is drawn is to be learned from the reference


class ReferenceStage(AdapterStage):
    error = staticmethod(latents_loss)
    caption_drop = CAPTION_DROP

    def __init__(self, recipe: Recipe, run: Run, tools: CheckpointTools) -> None:
        super().__init__(recipe, run, tools)
        self.adapters = self.before()
        self.reference = self.adapters.reference.requires_grad_(True)
        self.written = self._write()
        rates = self.begin()
        self.readouts = new_readouts(self.reference, {site: hidden.shape[-1] for site, hidden in self.written.items()})
        self.networks = nn.ModuleList([self.reference, self.readouts])
        self.rates = {**rates, **dict.fromkeys(self.readouts.parameters(), READOUTS)}

    def before(self) -> Adapters:
        """What the stages before have made, and a new reference network."""
        return load_adapters(self.run.folder, self.run.device, [CONTROL_BASE_FILE, CONTROL_PROJECTION_FILE], BEFORE)

    def begin(self) -> Mapping[nn.Parameter, float]:
        """Give the reference network its first weights. Returns learning rates."""
        last = self.recipe.steps  # no step of the run's own
        batch = self.batch(replace(self.recipe, batch=BEGINNING), last)
        return begin_reference(self.port, self.adapters, *self.given(batch, last))

    def timesteps(self, step: int, timestep: Tensor) -> Tensor:
        return timesteps_at(step / self.recipe.steps, timestep)

    def loss_of(self, batch: Batch, step: int) -> Tensor:
        with codes_of(self.reference) as codes:
            loss = super().loss_of(batch, step)
        return loss + readouts_loss(self.readouts, codes, batch)

    def predict(self, batch: Batch, step: int) -> Tensor:
        return predict_velocity(self.port, self.adapters, *self.given(batch, step))

    def given(self, batch: Batch, step: int) -> tuple[Call, Bank, Heads]:
        """What `predict_velocity` takes: the batch, with the person in another pose as the reference."""
        together = self.together(step)
        drawn = np.random.default_rng([self.recipe.seed, step, 1]).integers(
            REFERENCES, size=len(batch.views) // together
        )
        drawn = drawn.repeat(together)
        others = np.where(drawn == batch.views // self.a_pose, (drawn + 1) % REFERENCES, drawn)
        place = torch.from_numpy(batch.people * REFERENCES + others)
        place = torch.where(batch.uncond, len(self.pool.latents) * REFERENCES, place)
        bank = {site: written[place].float().to(self.run.device) for site, written in self.written.items()}
        return batch.call, bank, self.heads(batch, batch.views)

    @torch.no_grad()
    def _write(self) -> Bank:
        """What the write passes over views in the first REFERENCES poses leave, and at the end that of uncond rows;
        float16.

        No prompt, as most rows have none: so they are the same at every step.
        """
        people, views = (part.flatten() for part in np.mgrid[: len(self.pool.latents), :REFERENCES])
        nobody = torch.arange(len(people) + 1) == len(people)
        people, views = np.append(people, 0), np.append(self.a_pose * views, 0)
        context = self.model.text_encoder(self.empty[None].to(self.run.device)).last_hidden_state
        parts: list[Bank] = []
        firsts = range(0, len(people), WRITTEN_AT_ONCE)
        for first in tqdm(firsts, "Writing references", file=sys.stderr, mininterval=5.0):
            rows = np.arange(first, min(first + WRITTEN_AT_ONCE, len(people)))
            uncond = nobody[rows]
            reference = self.pool.latents[people[rows], views[rows]].float()
            reference = torch.where(uncond[:, None, None, None], 0.0, reference).to(self.run.device)
            own = heads_of(self.pool, people[rows], views[rows], uncond, self.recipe.size).to(self.run.device)
            call = Call(
                reference,
                torch.zeros(len(rows), dtype=torch.long, device=self.run.device),
                context.expand(len(rows), -1, -1),
                Rows(tuple(uncond.tolist())),
            )
            bank = write_reference(self.port, self.adapters, call, own)
            parts.append({site: hidden.half().cpu() for site, hidden in bank.items()})
        return {site: torch.cat([part[site] for part in parts]) for site in parts[0]}

    def drawing(self, person: Person) -> tuple[Sequence[Tap], Begin | None]:
        return reenactment(self.port, self.adapters, self.model.vae, person, self.run.device)

    def export(self) -> list[Path]:
        """The published file's tensors, float16."""
        path = self.run.folder / self.recipe.stage / f"{REFERENCE_FILE}.safetensors"
        save_network(path, self.reference)
        return [path]


def timesteps_at(share: float, timestep: Tensor) -> Tensor:
    """timestep (n,), spread over all there are, to those of a run of which this share is done."""
    start, end = FALL
    first = FIRST_TIMESTEP * min(1.0, max(0.0, (end - share) / (end - start)))
    return (first + timestep * (STEPS - first) / STEPS).long()


@torch.no_grad()
def begin_reference(
    port: Port, networks: Adapters, call: Call, bank: Bank, target: Heads
) -> Mapping[nn.Parameter, float]:
    """First weights that hand on what they are given here and add a little of it to the UNet's features. Returns
    learning rates."""
    last = last_layers(networks.reference)
    deviations, kept = added_to(port, call, last), []
    for site, layer in layers_of(networks.reference).items():
        height, width = bank[site].shape[-2:]
        for attention, length, shift in (
            (layer.attn_ref.attnx, width, 0),
            (layer.attn_ref.attny, height, 0),
            (layer.attn.attnx, width, width),
            (layer.attn.attny, height, height),
        ):
            look_at_same_place(attention, length, shift)
            kept += [attention.to_q, attention.to_k]
        deviations |= dict.fromkeys((layer.attn_ref.conv_in, layer.attn.conv_in), CONTENT)
        # One convolution takes in both.
        deviations[layer.attn_ref.proj] = deviations[layer.attn.proj] / ADDED
    with unit_outputs(networks.reference, deviations, kept):
        predict_velocity(port, networks, call, bank, target)
    return rates_by_size(networks.reference, dict.fromkeys(last, LAST_LAYERS))


def new_readouts(reference: ReferenceAdapter, sides: Mapping[str, int]) -> nn.ModuleDict:
    """For each site a layer that gives all latents under each place of features so wide and high."""
    widest = max(sides.values())
    readouts = {
        site: nn.Conv2d(layer.attn.norm.weight.shape[0], 4 * (widest // sides[site]) ** 2, kernel_size=1)
        for site, layer in layers_of(reference).items()
    }
    for readout in readouts.values():
        silence(readout)
    return nn.ModuleDict({site.replace(".", "_"): readout for site, readout in readouts.items()})


@contextmanager
def codes_of(reference: ReferenceAdapter) -> Iterator[dict[str, Tensor]]:
    """By site what the layers have read, (n, h, w, C), before the convolution that adds it to the UNet's features."""
    codes: dict[str, Tensor] = {}
    handles = [
        layer.attn.attny.output.register_forward_hook(lambda _, given, output, site=site: codes.update({site: output}))
        for site, layer in layers_of(reference).items()
    ]
    try:
        yield codes
    finally:
        for handle in handles:
            handle.remove()


def readouts_loss(readouts: nn.ModuleDict, codes: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """Error of the latents that are read from the codes; there are none to know where uncond."""
    known = torch.where(batch.uncond[:, None, None, None].to(batch.latents.device), 0.0, batch.latents)
    drawn = draw_by(readouts, codes, known.shape[-1])
    return torch.stack([weighted_mean((one - known).square(), batch.weight) for one in drawn]).mean()


def draw_by(readouts: nn.ModuleDict, codes: Mapping[str, Tensor], side: int) -> list[Tensor]:
    """The latents (n, 4, side, side) by each site's code."""
    return [spread(readouts[site.replace(".", "_")](code.permute(0, 3, 1, 2)), side) for site, code in codes.items()]


def last_layers(reference: ReferenceAdapter) -> dict[nn.Module, str]:
    """What adds to the UNet's features, with its site."""
    return {layer.attn.proj: site for site, layer in layers_of(reference).items()}


def layers_of(reference: ReferenceAdapter) -> dict[str, STKReference]:
    """The layers by site."""
    return {site: layer for site, layer in reference.sites().items() if isinstance(layer, STKReference)}


def write_reference(port: Port, networks: Adapters, call: Call, own: Heads) -> Bank:
    """What the recipe's write pass leaves, with a graph back to what requires one: the call's rows are references at
    timestep 0, zeros where uncond, and `own` their heads."""
    bank: Bank = {}
    control = add_control(control_of(networks.control, own))
    write(port, call, bank, [record(site, bank) for site in networks.reference.sites()], control)
    return bank


def predict_velocity(port: Port, networks: Adapters, call: Call, bank: Bank, target: Heads) -> Tensor:
    """What the UNet predicts of the call's rows under the recipe's taps, with a graph back to what requires one."""
    control = control_of(networks.control, target)
    reads = [_read(site, layer, bank) for site, layer in networks.reference.sites().items()]
    return port.run(call, [*add_control(control), *reads])


def reenactment(
    port: Port, networks: Adapters, vae: AutoencoderKL, person: Person, device: torch.device
) -> tuple[Sequence[Tap], Begin]:
    """As users draw: the person of view 0 with the face of view 1. What acts, and what begins it."""
    own, target = (control_features(networks.control, [face], device, torch.float32) for face in person.faces)
    reference = encode(vae, person.pictures[:1])
    recipe = Reenactment(port, networks.reference.sites(), reference, target, own)
    return recipe.taps(), recipe.begin


def _read(site: str, layer: ReferenceLayer, bank: Bank) -> Tap:
    return Tap(site, lambda hidden, call: hidden + layer.read(hidden, layer.prepare(bank[site])))

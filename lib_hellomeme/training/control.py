"""The stage `control`: v5c's projection of control's maps onto the UNet, from single views whose pose and expression it
is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lib_hellomeme.networks.control import ControlProjection, KnittedProjector, ProjectedControl
from lib_hellomeme.recipes.hellomeme import control_features
from lib_hellomeme.training.adapters import (
    BEFORE,
    CONTROL_BASE_FILE,
    CONTROL_PROJECTION_FILE,
    AdapterStage,
    Batch,
    Heads,
    add_control,
    control_of,
    load_adapters,
)
from lib_hellomeme.training.beginnings import added_to, queries_and_keys, rates_by_size, unit_outputs
from lib_hellomeme.training.control_base import BEGINNING, SHARP
from lib_hellomeme.training.data import Person
from lib_hellomeme.training.diffusion import velocity_loss
from lib_hellomeme.training.loop import Recipe, Run, save_network
from lib_hellomeme.training.models import CheckpointTools, silence
from lib_hellomeme.unet.port import Begin, Call, Port, Tap

CAPTION_DROP = 0.4
LAST_LAYERS = 10.0  # how much faster the layers that add to the UNet learn: what they add has to grow


class ControlStage(AdapterStage):
    error = staticmethod(velocity_loss)
    caption_drop = CAPTION_DROP

    def __init__(self, recipe: Recipe, run: Run, tools: CheckpointTools) -> None:
        super().__init__(recipe, run, tools)
        self.control = load_adapters(run.folder, run.device, [CONTROL_BASE_FILE], BEFORE).control
        self.networks = self.control.projection.requires_grad_(True)
        batch = self.batch(replace(recipe, batch=BEGINNING), recipe.steps)
        self.rates = begin_projection(self.port, self.control, batch.call, self.heads(batch, batch.views))

    def predict(self, batch: Batch, step: int) -> Tensor:
        control = control_of(self.control, self.heads(batch, batch.views))
        return self.port.run(batch.call, add_control(control))

    def drawing(self, person: Person) -> tuple[Sequence[Tap], Begin | None]:
        """By the caption, with the face of view 1."""
        return add_control(control_features(self.control, [person.faces[1]], self.run.device, torch.float32)), None

    def export(self) -> list[Path]:
        """The published file's tensors, float16."""
        path = self.run.folder / self.recipe.stage / f"{CONTROL_PROJECTION_FILE}.safetensors"
        save_network(path, self.networks)
        return [path]


@torch.no_grad()
def begin_projection(port: Port, control: ProjectedControl, call: Call, heads: Heads) -> Mapping[nn.Parameter, float]:
    """First weights that add nothing yet. Returns learning rates.

    Until the last layers have found what is of use in it, all that control adds is noise to the UNet, and is unlearned
    first (the zero convolutions of ControlNet: Zhang et al. 2023, section 3.1). Their rates are by the size that they
    are to have.
    """
    projection = control.projection
    last = last_layers(projection)
    with unit_outputs(projection, queries_and_keys(projection, SHARP) | added_to(port, call, last)):
        control_of(control, heads)
    rates = rates_by_size(projection, dict.fromkeys(last, LAST_LAYERS))
    for layer in last:
        silence(layer)
    return rates


def last_layers(projection: ControlProjection) -> dict[nn.Module, str]:
    """What adds to the UNet's features, with its site."""
    layers: dict[nn.Module, str] = {}
    for site, projector in projection.sites().items():
        assert isinstance(projector, KnittedProjector)
        layers |= {projector.proj: site, projector.attn.proj: site}
    return layers

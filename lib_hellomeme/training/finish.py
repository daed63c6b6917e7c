"""The stage `finish`: reference and all of control once more, at first above all where little noise is left.

`refine` gives most of its steps to the noisiest timesteps, where it is decided who is drawn. Where faces get their
details, below a third of the noise, what both networks add then made predictions worse than the UNet's alone.

Control's base, which has learned to draw one person without a UNet, learns here what this one makes use of. What the
reference network reads is to tell who is shown, as in `reference`: by the UNet's loss alone, in which expressions weigh
more, looks got lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from lib_hellomeme.training import control, reference
from lib_hellomeme.training.adapters import CONTROL_BASE_FILE, CONTROL_PROJECTION_FILE, REFERENCE_FILE, Batch
from lib_hellomeme.training.beginnings import rates_by_size
from lib_hellomeme.training.diffusion import STEPS
from lib_hellomeme.training.joint import JointStage
from lib_hellomeme.training.loop import Recipe, Run
from lib_hellomeme.training.models import CheckpointTools

LAST_LAYERS = 3.0  # how much faster the layers that add to the UNet learn, which have grown by now
CONTROL_BASE = 0.3  # how much slower control's base goes on than the others
LEANING = 1.5  # exponent of the timesteps' share of all: 45 % of the rows are below 300, and 10 % above 850
LEANS = 0.17  # share of the run; by then the harm was gone, and colours, decided in noise, had got worse
BEFORE = {REFERENCE_FILE: "refine", CONTROL_BASE_FILE: "control_base", CONTROL_PROJECTION_FILE: "joint"}


class FinishStage(JointStage):
    stages = BEFORE

    def __init__(self, recipe: Recipe, run: Run, tools: CheckpointTools) -> None:
        super().__init__(recipe, run, tools)
        written = self.write(self.batch(recipe, recipe.steps), recipe.steps)  # no step of the run's own
        sides = {site: hidden.shape[-1] for site, hidden in written.items()}
        self.readouts = reference.new_readouts(self.reference, sides).to(run.device)
        self.networks = nn.ModuleList([self.networks, self.readouts])
        self.rates = {**self.rates, **dict.fromkeys(self.readouts.parameters(), reference.READOUTS)}

    def parts(self) -> dict[str, nn.Module]:
        return {**super().parts(), CONTROL_BASE_FILE: self.adapters.control.base}

    def begin(self) -> Mapping[nn.Parameter, float]:
        last = (*reference.last_layers(self.reference), *control.last_layers(self.projection))
        slower = dict.fromkeys(self.adapters.control.base.modules(), CONTROL_BASE)
        return rates_by_size(self.networks, {**slower, **dict.fromkeys(last, LAST_LAYERS)})

    def loss_of(self, batch: Batch, step: int) -> Tensor:
        with reference.codes_of(self.reference) as codes:
            loss = super().loss_of(batch, step)
        return loss + reference.readouts_loss(self.readouts, codes, batch)

    def timesteps(self, step: int, timestep: Tensor) -> Tensor:
        leans = step < LEANS * self.recipe.steps
        return (STEPS * (timestep / STEPS) ** LEANING).long() if leans else timestep

    def export(self) -> list[Path]:
        """The published files' tensors, float16."""
        return self.save(self.run.folder)

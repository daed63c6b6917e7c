"""The stage `refine`: the reference network alone once more, beside control that knows expressions by now.

In the stage `joint` expressions were won at the price of looks (see CONTRAST in training/joint.py). Steps are in turn
those of either stage: rows in pairs, whose difference tells expressions apart, and rows of as many people, for the
looks. With control as it stays, references are written once.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from lib_hellomeme.training.adapters import (
    CONTROL_BASE_FILE,
    CONTROL_PROJECTION_FILE,
    REFERENCE_FILE,
    Batch,
    Error,
    load_adapters,
)
from lib_hellomeme.training.beginnings import rates_by_size
from lib_hellomeme.training.joint import check_pairs, pairs_loss, with_pure_noise
from lib_hellomeme.training.loop import Recipe, Run
from lib_hellomeme.training.models import Adapters, CheckpointTools
from lib_hellomeme.training.reference import ReferenceStage, last_layers

LAST_LAYERS = 3.0  # how much faster the layers that add to the UNet learn, which have grown by now
BEFORE = {REFERENCE_FILE: "joint", CONTROL_BASE_FILE: "control_base", CONTROL_PROJECTION_FILE: "joint"}
PURE = 900  # rows at this timestep and above are as drawing begins


def in_pairs(step: int) -> bool:
    """Whether the step is one of `joint`'s kind."""
    return step % 2 == 0


class RefineStage(ReferenceStage):
    a_pose = 2

    def __init__(self, recipe: Recipe, run: Run, tools: CheckpointTools) -> None:
        check_pairs(recipe)
        super().__init__(recipe, run, tools)

    def before(self) -> Adapters:
        return load_adapters(self.run.folder, self.run.device, stages=BEFORE)

    def begin(self) -> Mapping[nn.Parameter, float]:
        return rates_by_size(self.reference, dict.fromkeys(last_layers(self.reference), LAST_LAYERS))

    def together(self, step: int) -> int:
        return self.a_pose if in_pairs(step) else 1

    def timesteps(self, step: int, timestep: Tensor) -> Tensor:
        return timestep if in_pairs(step) else super().timesteps(step, timestep)

    def batch(self, recipe: Recipe, step: int) -> Batch:
        return with_pure_noise(super().batch(recipe, step), PURE)

    def error_at(self, step: int) -> Error:
        return pairs_loss if in_pairs(step) else self.error

"""`python -m lib_hellomeme train STAGE`: the stages by name, with the settings that they are meant to have."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from lib_hellomeme.errors import SettingsError
from lib_hellomeme.training.autoencoder import VaeStage
from lib_hellomeme.training.base import BaseStage
from lib_hellomeme.training.control import ControlStage
from lib_hellomeme.training.control_base import ControlBaseStage
from lib_hellomeme.training.decoder import DecoderStage
from lib_hellomeme.training.finish import FinishStage
from lib_hellomeme.training.joint import JointStage
from lib_hellomeme.training.loop import Recipe, Run, Stage, keep_freed_memory, train
from lib_hellomeme.training.measuring import MeasureStage
from lib_hellomeme.training.models import CheckpointTools
from lib_hellomeme.training.motion import AnimateDiffStage, MotionStage
from lib_hellomeme.training.reference import ReferenceStage
from lib_hellomeme.training.refine import RefineStage
from lib_hellomeme.training.style import StyleStage


class StageDefaults(NamedTuple):
    """What a stage is and how it is best trained."""

    build: Callable[[Recipe, Run, CheckpointTools], Stage]
    steps: int
    batch: int
    rate: float
    people: int = 1500


STAGES: dict[str, StageDefaults] = {
    "vae": StageDefaults(lambda recipe, run, tools: VaeStage(recipe, run), 2500, 4, 4e-4),
    "decoder": StageDefaults(lambda recipe, run, tools: DecoderStage(recipe, run), 4000, 2, 4e-4, people=6000),
    "base": StageDefaults(BaseStage, 8000, 8, 1.5e-3),
    "control_base": StageDefaults(ControlBaseStage, 10000, 32, 0.01),
    "control": StageDefaults(ControlStage, 2000, 12, 0.02),
    "reference": StageDefaults(ReferenceStage, 8000, 12, 0.012),
    "joint": StageDefaults(JointStage, 4000, 12, 0.004),
    "refine": StageDefaults(RefineStage, 10000, 12, 0.005, people=2000),
    "finish": StageDefaults(FinishStage, 19000, 12, 0.004, people=3000),
    "style": StageDefaults(StyleStage, 1000, 16, 1e-3, people=500),
    "motion": StageDefaults(MotionStage, 6000, 2, 3e-4),
    "animatediff": StageDefaults(AnimateDiffStage, 6000, 2, 3e-4),
    "measure": StageDefaults(MeasureStage, 7000, 32, 2e-3),
}  # in the order in which they need each other's files

OWN = ("steps", "batch", "rate", "people")  # what each stage has a value of its own for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stage", choices=tuple(STAGES), help="what to train, in this order")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where all stages keep their files")
    parser.add_argument("--steps", type=int, help="how long (the stage's own)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--size", type=int, default=128, metavar="PX", help="side of the pictures (%(default)s)")
    parser.add_argument("--batch", type=int, help="pictures, or clips, a step (the stage's own)")
    parser.add_argument("--rate", type=float, help="learning rate (the stage's own)")
    parser.add_argument("--people", type=int, help="people in the pool of latents (the stage's own)")
    parser.add_argument("--views", type=int, default=6, help="views of each of them (%(default)s)")
    parser.add_argument("--device", help="cuda or cpu (the best there is)")
    parser.add_argument("--half", action=argparse.BooleanOptionalAction, help="in bfloat16 where safe (on a GPU)")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw ahead (%(default)s)")
    parser.add_argument("--save-every", type=int, default=200, metavar="STEPS", help="(%(default)s)")
    parser.add_argument("--validate-every", type=int, default=1000, metavar="STEPS", help="(%(default)s)")


def run(arguments: argparse.Namespace, tools: CheckpointTools) -> None:
    """Train one stage, or go on with it; names the files it has written. Raises SettingsError and CheckpointError."""
    stage = STAGES[arguments.stage]
    asked = {name: getattr(arguments, name) for name in OWN}
    own = {name: getattr(stage, name) if value is None else value for name, value in asked.items()}
    recipe = Recipe(arguments.stage, seed=arguments.seed, size=arguments.size, views=arguments.views, **own)
    _check(recipe)
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    work = Run(
        folder=arguments.out,
        device=torch.device(device),
        workers=arguments.workers,
        save_every=arguments.save_every,
        validate_every=arguments.validate_every,
        half=device != "cpu" if arguments.half is None else arguments.half,
    )
    work.folder.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()  # before people are drawn: the VAE encodes them
    for path in train(stage.build(recipe, work, tools), recipe, work):
        print(path)


def _check(recipe: Recipe) -> None:
    if recipe.size % 64 or recipe.size < 64:
        raise SettingsError(f"--size {recipe.size} is no multiple of 64: choose 64, 128, 192 or 256")
    if recipe.views < 2 or recipe.people < 1:
        raise SettingsError("the pool needs at least one person and two views of each")
    if min(recipe.steps, recipe.batch) < 1 or recipe.seed < 0 or not recipe.rate > 0:
        raise SettingsError("--steps and --batch must be at least 1, --seed at least 0, and --rate above 0")

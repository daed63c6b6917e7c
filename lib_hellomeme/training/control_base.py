"""The stage `control_base`: the part of control that all UNets share learns to draw, without a UNet.

It is given a head's pose and an expression, and each of its four maps has to hold five drawings of one and the same
person: with that pose and a face at rest, and what eyes, brows, jaw and mouth each change in that. By the loss of a
UNet alone it does not learn expressions: what they change is little beside poses, people and noise, and whatever cannot
be used at once is noise to the UNet and is unlearned. In one drawing of all that changes, smiles are lost beside open
mouths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from lib_hellomeme.face.condition import condition_input
from lib_hellomeme.face.track import ARKIT_NAMES
from lib_hellomeme.networks.control import ControlBase
from lib_hellomeme.networks.expression import ARKIT_SCALE
from lib_hellomeme.training.adapters import CONTROL_BASE_FILE, Heads
from lib_hellomeme.training.autoencoder import UNSEEN
from lib_hellomeme.training.beginnings import queries_and_keys, rates_by_size, unit_outputs
from lib_hellomeme.training.data import Person, Request, counted, draw_people
from lib_hellomeme.training.diffusion import seeded
from lib_hellomeme.training.faces import random_face
from lib_hellomeme.training.identity import Identity
from lib_hellomeme.training.loop import Recipe, Run, save_network
from lib_hellomeme.training.models import CheckpointTools, new_control, silence
from lib_hellomeme.training.people import render
from lib_hellomeme.training.pool import sheet, to_pictures, to_tensor

MODEL = Identity(
    woman=True,
    skin="fair",
    hair="black",
    hair_shape="short",
    fringe="open",
    parting=0.0,
    eyes="blue",
    background="teal",
    clothes="red",
    collar="round",
    glasses=None,
    round_glasses=False,
    beard=False,
    earrings=False,
    freckles=False,
    head_width=1.0,
    jaw_width=1.0,
    chin_length=1.0,
    eye_size=1.05,
    eye_distance=1.0,
    eye_tilt=0.03,
    brow_width=1.0,
    brow_height=1.0,
    brow_tilt=0.0,
    nose_size=1.0,
    mouth_width=1.0,
    lip_fullness=1.0,
    curl_seed=0,
)
"""Nothing hides this face."""

PARTS = (("eye",), ("brow",), ("jaw",), ("mouth", "cheek", "nose"))  # what each drawing's coefficients begin with
DRAWINGS = 1 + len(PARTS)
VIEWS_A_PERSON = 4  # drawings for each person of the other stages' pool; of half as many much is learned by heart
SMALLER = 4  # px of a rendering to one of the drawings
NOBODY = 0.1  # share of a batch that is given nobody's pose and expression, of which the mean drawings have to come
BEGINNING = 32  # rows that the first weights are fitted to
SMOOTH = 1.6  # rad: how far the waves of an expression's embedding that are heard at first turn from 0 to 1
SHARP = 1.5  # deviation of new queries and keys: attention that chooses from the beginning
READOUTS = 2.0  # learning rate of the layers that the drawings are read by, which begin with zeros
SHOWN = 8  # drawings on the sheet


class ControlBaseStage:
    """The loss is the mean square error of all drawings, each of variance 1, in all four maps."""

    def __init__(self, recipe: Recipe, run: Run, tools: CheckpointTools) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.run = recipe, run
        count = VIEWS_A_PERSON * recipe.people
        self.heads, pictures = draw(Request(recipe.seed, recipe.size, DRAWINGS), count, run.workers)
        self.unseen, self.truth = draw(Request(recipe.seed + UNSEEN, recipe.size, DRAWINGS), SHOWN, 0)
        self.mean = pictures.mean(dim=0)  # 15 h w
        self.scale = (pictures - self.mean).unflatten(1, (DRAWINGS, 3)).std(dim=(0, 2, 3, 4)).repeat_interleave(3)  # 15
        self.drawings = (pictures - self.mean) / self.scale[:, None, None]
        self.base = new_control().base.to(run.device)
        begin_base(self.base, Heads(*(value[:BEGINNING] for value in self.heads)).to(run.device))
        self.readouts = new_readouts(self.base, self.drawings.shape[-1], self.heads)
        self.networks = nn.ModuleList([self.base, self.readouts])
        self.rates: Mapping[nn.Parameter, float] = rates_by_size(self.base, {}) | dict.fromkeys(
            self.readouts.parameters(), READOUTS
        )

    def loss(self, step: int) -> Tensor:
        device = self.run.device
        chosen = np.random.default_rng([self.recipe.seed, step]).integers(len(self.drawings), size=self.recipe.batch)
        nobody = torch.rand(len(chosen), generator=seeded(self.recipe.seed, step)) < NOBODY
        condition, expression = (value[chosen] for value in self.heads)
        condition = torch.where(nobody[:, None, None, None], -1.0, condition)
        expression = torch.where(nobody[:, None], 0.0, expression)
        wanted = torch.where(nobody[:, None, None, None], 0.0, self.drawings[chosen]).to(device)
        drawn = draw_by(self.base, self.readouts, Heads(condition, expression).to(device), wanted.shape[-1])
        return torch.stack([(one - wanted).square().mean() for one in drawn]).mean()

    def validate(self) -> np.ndarray:
        """Unseen poses and expressions, and below, how they are drawn by each map, the coarsest first."""
        drawn = draw_by(self.base, self.readouts, self.unseen.to(self.run.device), self.truth.shape[-1])
        mean, scale = (value.to(self.run.device) for value in (self.mean, self.scale[:, None, None]))
        rows = [self.truth, *(one * scale + mean for one in drawn)]  # n 15 h w each
        return sheet([to_pictures(row.unflatten(1, (DRAWINGS, 3)).sum(dim=1)) for row in rows])

    def export(self) -> list[Path]:
        """The published file's tensors, float16."""
        path = self.run.folder / self.recipe.stage / f"{CONTROL_BASE_FILE}.safetensors"
        save_network(path, self.base)
        return [path]


def draw_model(request: Request, index: int) -> Person:
    """The drawn model in a random pose: with a face at rest, with a part of a random expression each, and with all."""
    face = random_face(np.random.default_rng([request.seed, index]), request.size)
    moved = [[name.startswith(part) for name in ARKIT_NAMES] for part in PARTS]
    drawn = [render(MODEL, replace(face, coefficients=face.coefficients * part)) for part in ([False], *moved, [True])]
    return Person(
        MODEL,
        tuple(one.face for one in drawn),
        np.stack([one.picture for one in drawn]),
        np.stack([one.regions for one in drawn]),
        None,
    )


def draw(request: Request, count: int, workers: int) -> tuple[Heads, Tensor]:
    """Poses and expressions of so many heads, and the drawings of each, (n, 15, size / 4, size / 4): RGB in [-1, 1] at
    rest, and what each of PARTS changes in that."""
    side = (request.size // SMALLER, request.size // SMALLER)
    conditions, expressions, drawings = [], [], []
    for person in counted(draw_people(request, range(count), workers, draw_model), count):
        face = person.faces[-1]
        conditions.append(condition_input(face.rotation, face.translation, request.size, request.size))
        expressions.append(face.coefficients)
        small = [cv2.resize(picture, side, interpolation=cv2.INTER_AREA) for picture in person.pictures[:DRAWINGS]]
        resting, *moved = to_tensor(np.stack(small))
        drawings.append(torch.cat([resting, *(one - resting for one in moved)]))
    given = Heads(torch.from_numpy(np.stack(conditions)), torch.from_numpy(np.stack(expressions)).float())
    return given, torch.stack(drawings)


@torch.no_grad()
def begin_base(base: ControlBase, heads: Heads) -> None:
    """First weights that hand on what they are given, in these heads."""
    silence(base.face_proj.linear_2)  # drawn people have no photos of face parts
    smooth_embedding(base)
    with unit_outputs(base, queries_and_keys(base, SHARP)):
        maps_of(base, heads)


def smooth_embedding(base: ControlBase) -> None:
    """Take away the quick waves of the coefficients' embedding, which turn up to 80 times between 0 and 1.

    In what random layers make of those, next to nothing of an expression can be told by the layers behind them, nor of
    the pose that it is mixed with; training may bring them back.
    """
    weight = base.exp_proj.linear_1.weight
    half = weight.shape[1] // 2
    turns = ARKIT_SCALE * torch.exp(-math.log(10000) * torch.arange(half, device=weight.device) / half)
    weight *= (turns <= SMOOTH).repeat(2)  # cosines, then sines


def maps_of(base: ControlBase, heads: Heads) -> list[Tensor]:
    return base(heads.condition, heads.expression)


def new_readouts(base: ControlBase, side: int, heads: Heads) -> nn.ModuleList:
    """For each map a layer that gives all values of the drawings, side x side px, under each of its px."""
    with torch.no_grad():
        maps = maps_of(base, Heads(*(value[:1] for value in heads)).to(base.exp_proj.linear_1.weight.device))
    readouts = nn.ModuleList(
        nn.Conv2d(one.shape[1], 3 * DRAWINGS * (side // one.shape[-1]) ** 2, kernel_size=1) for one in maps
    )
    for readout in readouts:
        silence(readout)
    return readouts


def draw_by(base: ControlBase, readouts: nn.ModuleList, heads: Heads, side: int) -> list[Tensor]:
    """The drawings (n, 15, side, side) by each map."""
    drawn = []
    for one, readout in zip(maps_of(base, heads), readouts, strict=True):
        drawn.append(spread(readout(one), side))
    return drawn


def spread(values: Tensor, side: int) -> Tensor:
    """(n, c*p*p, h, h), all values under each place, to (n, c, side, side), side = p*h."""
    p = side // values.shape[-1]
    return rearrange(values, "n (c p q) h w -> n c (h p) (w q)", p=p, q=p)

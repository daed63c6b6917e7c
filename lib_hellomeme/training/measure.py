"""What a picture of the demo world shows: head pose, expression, and who it is.

A small network learns it from renderings, whose truth is known (stage `measure`); its own error on unseen ones is what
`own_error` tells.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from lib_hellomeme.face.track import ARKIT_INDEX, ARKIT_NAMES
from lib_hellomeme.training.data import Person, Request, draw_people
from lib_hellomeme.training.faces import turned_degrees
from lib_hellomeme.training.identity import MEN_HAIR, WOMEN_HAIR, Identity
from lib_hellomeme.training.people import Region
from lib_hellomeme.training.pool import to_tensor

SIZE = 128  # px that pictures are brought to
HIDDEN = 96  # what pose, expression and shapes are read from
HAIR_SHAPES = tuple(sorted({*WOMEN_HAIR, *MEN_HAIR}))
ATTRIBUTES = ("woman", "glasses", "beard")
COLOURED = (Region.BACKGROUND, Region.HAIR, Region.SKIN, Region.CLOTHES)
FEWEST_PIXELS = 20  # of a region, for its colour to count
COLOUR_SCALE = 100.0  # distance in Lab that counts as wrong in full

# The expressions that evaluation looks at, as means of coefficients.
EXPRESSIONS: dict[str, tuple[str, ...]] = {
    "jaw open": ("jawOpen",),
    "eyes closed": ("eyeBlinkLeft", "eyeBlinkRight"),
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "brows up": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
}
# In training these coefficients weigh more than the others.
_LOOKED_AT = {name for parts in EXPRESSIONS.values() for name in parts}
COEFFICIENT_WEIGHTS = torch.tensor([4.0 if name in _LOOKED_AT else 1.0 for name in ARKIT_NAMES])


class MeasuringNetwork(nn.Module):
    """Five convolutions down for pose, expression and shapes; two up again for the regions."""

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 96, 96)) -> None:
        super().__init__()
        inner = [3, *widths]
        self.down = nn.ModuleList(_block(a, b, stride=2) for a, b in pairwise(inner))
        self.up = nn.ModuleList(_block(a + b, b) for a, b in ((widths[3], widths[2]), (widths[2], widths[1])))
        self.regions = nn.Conv2d(widths[1], len(Region), kernel_size=1)
        self.hidden = nn.Linear(widths[4] * 16, HIDDEN)
        self.pose = nn.Linear(HIDDEN, 3)
        self.expression = nn.Linear(HIDDEN, len(ARKIT_NAMES))
        self.hair = nn.Linear(HIDDEN, len(HAIR_SHAPES))
        self.attributes = nn.Linear(HIDDEN, len(ATTRIBUTES))

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """pictures (n, 3, SIZE, SIZE) in [-1, 1]. rotation (n, 3) radians, coefficients (n, 51), and logits: hair (n,
        9), attributes (n, 3), regions (n, 13, SIZE/4, SIZE/4)."""
        maps, x = [], pictures
        for block in self.down:
            x = block(x)
            maps.append(x)
        hidden = F.silu(self.hidden(F.adaptive_avg_pool2d(x, 4).flatten(1)))  # n HIDDEN
        grown = maps[3]
        for block, skip in zip(self.up, (maps[2], maps[1]), strict=True):
            grown = block(torch.cat([F.interpolate(grown, scale_factor=2.0), skip], dim=1))
        return {
            "rotation": self.pose(hidden),
            "coefficients": self.expression(hidden),
            "hair": self.hair(hidden),
            "attributes": self.attributes(hidden),
            "regions": self.regions(grown),
        }


@dataclass(frozen=True, eq=False)
class Measured:
    """What was found in one picture."""

    rotation: np.ndarray  # (3,) radians
    coefficients: np.ndarray  # (51,) in [0, 1]
    colours: Mapping[Region, np.ndarray]  # Lab, of the regions that are large enough
    shapes: np.ndarray  # (12,) probabilities of HAIR_SHAPES and of ATTRIBUTES

    def expression(self, name: str) -> float:
        """A key of EXPRESSIONS, in [0, 1]."""
        return float(np.mean([self.coefficients[ARKIT_INDEX[part]] for part in EXPRESSIONS[name]]))


def load_measuring_network(path: str | os.PathLike[str]) -> MeasuringNetwork:
    """What the stage `measure` has exported."""
    network = MeasuringNetwork()
    network.load_state_dict(load_file(path))
    return network.float().eval().requires_grad_(False)


@torch.no_grad()
def measure(network: MeasuringNetwork, pictures: np.ndarray) -> list[Measured]:
    """(n, H, W, 3) RGB uint8 of any size."""
    fitted = fit_size(to_tensor(pictures))
    found = {name: value.float().cpu() for name, value in network(fitted.to(network.pose.weight.device)).items()}
    shapes = torch.cat([found["hair"].softmax(dim=1), found["attributes"].sigmoid()], dim=1)
    regions = F.interpolate(found["regions"], size=pictures.shape[1:3], mode="bilinear").argmax(dim=1).numpy()
    return [
        Measured(
            found["rotation"][index].double().numpy(),
            found["coefficients"][index].clamp(0, 1).numpy(),
            region_colours(pictures[index], regions[index]),
            shapes[index].numpy(),
        )
        for index in range(len(pictures))
    ]


def fit_size(pictures: Tensor) -> Tensor:
    """(n, 3, H, W) to (n, 3, SIZE, SIZE)."""
    return F.interpolate(pictures, size=(SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)


def region_colours(picture: np.ndarray, regions: np.ndarray) -> dict[Region, np.ndarray]:
    """The median colour of each of COLOURED, in Lab, where there is enough of it."""
    lab = cv2.cvtColor(picture.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)
    masks = {region: regions == region for region in COLOURED}
    return {region: np.median(lab[mask], axis=0) for region, mask in masks.items() if mask.sum() >= FEWEST_PIXELS}


def pose_error(measured: Measured, rotation: np.ndarray) -> float:
    """Degrees of the turn between what was measured and rotation (3,) radians."""
    return turned_degrees(measured.rotation, rotation)


def identity_error(measured: Measured, other: Measured) -> float:
    """0 for the same colours and shapes; about 1 for a wrong one everywhere. The mean of a colours' and a shapes' half.

    A region that only one of them has counts as wrong in full.
    """
    regions = measured.colours.keys() | other.colours.keys()
    shared = measured.colours.keys() & other.colours.keys()
    distances = [float(np.linalg.norm(measured.colours[name] - other.colours[name])) for name in shared]
    colours = sum(min(distance / COLOUR_SCALE, 1.0) for distance in distances) + len(regions - shared)
    hair = np.abs(measured.shapes - other.shapes)[: len(HAIR_SHAPES)].sum() / 2
    attributes = np.abs(measured.shapes - other.shapes)[len(HAIR_SHAPES) :]
    shapes = (hair + attributes.sum()) / (1 + len(ATTRIBUTES))
    return 0.5 * colours / max(len(regions), 1) + 0.5 * float(shapes)


def own_error(network: MeasuringNetwork, seed: int, count: int = 64, size: int = SIZE) -> dict[str, float]:
    """How well renderings with known truth are measured: mean pose error in degrees, the correlations of EXPRESSIONS,
    and the mean identity error between two views of one person and between two persons."""
    people = list(draw_people(Request(seed, size, views=2), range(count)))
    measured = [measure(network, person.pictures) for person in people]
    pairs = [
        (found, face)
        for one, person in zip(measured, people, strict=True)
        for found, face in zip(one, person.faces, strict=True)
    ]
    errors = {"pose": float(np.mean([pose_error(found, face.rotation) for found, face in pairs]))}
    for name, parts in EXPRESSIONS.items():
        truth = [np.mean([face.coefficients[ARKIT_INDEX[part]] for part in parts]) for _, face in pairs]
        errors[name] = float(np.corrcoef([found.expression(name) for found, _ in pairs], truth)[0, 1])
    errors["same person"] = float(np.mean([identity_error(*one) for one in measured]))
    following = measured[1:] + measured[:1]
    errors["other person"] = float(
        np.mean([identity_error(a[0], b[0]) for a, b in zip(measured, following, strict=True)])
    )
    return errors


def true_shapes(identity: Identity) -> tuple[int, list[float]]:
    """The index in HAIR_SHAPES, and ATTRIBUTES as 0 or 1."""
    attributes = [float(identity.woman), float(identity.glasses is not None), float(identity.beard)]
    return HAIR_SHAPES.index(identity.hair_shape), attributes


def measuring_loss(found: Mapping[str, Tensor], people: Sequence[Person]) -> Tensor:
    """Against the truth of the first views: degrees and coefficients squared, regions and shapes by cross entropy."""
    device = found["rotation"].device
    rotation = torch.tensor(np.stack([person.faces[0].rotation for person in people]), dtype=torch.float32)
    coefficients = torch.tensor(np.stack([person.faces[0].coefficients for person in people]), dtype=torch.float32)
    weighted = COEFFICIENT_WEIGHTS.to(device) * (found["coefficients"].float() - coefficients.to(device)).square()
    hair, attributes = zip(*(true_shapes(person.identity) for person in people), strict=True)
    regions = torch.from_numpy(np.stack([person.regions[0] for person in people]))[:, None].float()
    regions = F.interpolate(regions, size=found["regions"].shape[-2:], mode="nearest")[:, 0].long()
    return (
        20.0 * F.mse_loss(found["rotation"].float(), rotation.to(device))
        + 10.0 * weighted.mean()
        + F.cross_entropy(found["regions"].float(), regions.to(device))
        + 0.3 * F.cross_entropy(found["hair"].float(), torch.tensor(hair, device=device))
        + 0.3 * F.binary_cross_entropy_with_logits(found["attributes"].float(), torch.tensor(attributes, device=device))
    )


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
        nn.Conv2d(outputs, outputs, kernel_size=3, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
    )

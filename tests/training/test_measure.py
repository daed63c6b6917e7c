"""Measuring: the formulas on known truth; the network's shapes and that it learns."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from lib_hellomeme.training.data import Person, Request, draw_people
from lib_hellomeme.training.measure import (
    COLOURED,
    EXPRESSIONS,
    HAIR_SHAPES,
    Measured,
    MeasuringNetwork,
    fit_size,
    identity_error,
    measure,
    measuring_loss,
    own_error,
    pose_error,
    region_colours,
    true_shapes,
)
from lib_hellomeme.training.people import Region
from lib_hellomeme.training.pool import to_tensor


@pytest.fixture(scope="module")
def people() -> list[Person]:
    return list(draw_people(Request(seed=11, size=128, views=2), range(12)))


def true_measure(person: Person, view: int) -> Measured:
    """What a faultless network would find."""
    hair, attributes = true_shapes(person.identity)
    shapes = np.concatenate([np.eye(len(HAIR_SHAPES))[hair], attributes])
    face = person.faces[view]
    return Measured(
        face.rotation, face.coefficients, region_colours(person.pictures[view], person.regions[view]), shapes
    )


def test_identity_error_tells_people_apart(people: list[Person]) -> None:
    measured = [[true_measure(person, view) for view in (0, 1)] for person in people]
    same = np.mean([identity_error(*views) for views in measured])
    other = np.mean([identity_error(a[0], b[0]) for a, b in pairwise(measured)])
    assert identity_error(measured[0][0], measured[0][0]) == 0
    assert same < 0.03
    assert other > 8 * same
    assert identity_error(measured[0][0], measured[1][0]) == identity_error(measured[1][0], measured[0][0])


def test_a_region_that_is_missing_counts(people: list[Person]) -> None:
    found = true_measure(people[0], 0)
    bare = Measured(found.rotation, found.coefficients, {}, found.shapes)
    assert identity_error(found, bare) == 0.5
    assert set(found.colours) <= set(COLOURED)
    assert Region.SKIN in found.colours


def test_pose_error_is_the_turn_between() -> None:
    found = Measured(np.array([0.0, 0.3, 0.0]), np.zeros(51), {}, np.zeros(12))
    assert pose_error(found, np.array([0.0, 0.1, 0.0])) == pytest.approx(np.degrees(0.2))


def test_expressions_are_means_of_coefficients(people: list[Person]) -> None:
    found = true_measure(people[0], 0)
    assert set(EXPRESSIONS) == {"jaw open", "eyes closed", "smile", "brows up"}
    assert all(0 <= found.expression(name) <= 1 for name in EXPRESSIONS)


@pytest.mark.parametrize("size", [64, 128, 192])
def test_pictures_of_any_size_are_measured(size: int) -> None:
    torch.manual_seed(0)
    pictures = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    found = measure(MeasuringNetwork().eval(), pictures)
    assert len(found) == 2
    assert found[0].rotation.shape == (3,)
    assert 0 <= found[0].coefficients.min() <= found[0].coefficients.max() <= 1
    assert found[0].shapes[: len(HAIR_SHAPES)].sum() == pytest.approx(1, abs=1e-5)


def test_the_network_can_learn_pictures(people: list[Person]) -> None:
    torch.manual_seed(0)
    network = MeasuringNetwork((8, 16, 24, 32, 40))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    pictures = fit_size(to_tensor(np.stack([person.pictures[0] for person in people])))
    losses = []
    for _ in range(25):
        loss = measuring_loss(network(pictures), people)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_own_error_names_what_evaluation_reports() -> None:
    torch.manual_seed(0)
    errors = own_error(MeasuringNetwork((8, 16, 24, 32, 40)).eval(), seed=5, count=3)
    assert set(errors) == {"pose", *EXPRESSIONS, "same person", "other person"}
    assert errors["pose"] > 0

"""The weights that the repository carries do what the README says, on a few people, with room for chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from lib_hellomeme.face.track import ARKIT_INDEX
from lib_hellomeme.standalone.evaluation import (
    FULL,
    NO_CONTROL,
    NO_REFERENCE,
    Artist,
    Case,
    mean,
    measured,
    score,
    seen,
    unseen_case,
)
from lib_hellomeme.standalone.host import EmbeddedHost
from lib_hellomeme.standalone.world import LORA, NEEDED, WORLD
from lib_hellomeme.training.base import CHECKPOINT
from lib_hellomeme.training.measure import EXPRESSIONS, MeasuringNetwork, load_measuring_network
from lib_hellomeme.training.measuring import FILE
from lib_hellomeme.training.people import render

CASES = [unseen_case(77, index, 128) for index in range(6)]
MOVED = ("smile", "brows up")
Scores = Mapping[str, Mapping[str, float]]


@pytest.fixture(scope="module")
def artist() -> Artist:
    return Artist(EmbeddedHost(WORLD / CHECKPOINT, WORLD, device="cpu"), 128, 10, 3.0, lambda: None)


@pytest.fixture(scope="module")
def network() -> MeasuringNetwork:
    return load_measuring_network(WORLD / FILE)


@pytest.fixture(scope="module")
def scores(artist: Artist, network: MeasuringNetwork) -> Scores:
    """The same people with all of it and without a part, in 10 steps."""
    return {
        name: score(network, CASES, [artist.variant(name, case) for case in CASES])
        for name in (FULL, NO_CONTROL, NO_REFERENCE)
    }


def test_pose_expression_and_identity_follow(scores: Scores) -> None:
    full = scores[FULL]
    assert full["pose"] < 8
    assert full["pose"] < 0.45 * scores[NO_CONTROL]["pose"]
    assert full["identity"] < 0.4 * scores[NO_REFERENCE]["identity"]
    assert min(full["jaw open"], full["eyes closed"]) > 0.75
    # Six people tell nothing of smiles' and brows' correlations: see the next test.


def test_smiles_and_brows_follow(artist: Artist, network: MeasuringNetwork) -> None:
    """Each person at rest and with all of both."""
    rest, moved = (
        measured(network, [artist.variant(FULL, driven(case, value)) for case in CASES]) for value in (0.0, 1.0)
    )
    for name in MOVED:
        rises = [after.expression(name) - before.expression(name) for before, after in zip(rest, moved, strict=True)]
        assert mean(rises) > 0.4


def driven(case: Case, value: float) -> Case:
    """The case by its driver at rest but for MOVED."""
    face = case.portrait.driving.face
    coefficients = np.zeros_like(face.coefficients)
    for name in MOVED:
        coefficients[[ARKIT_INDEX[part] for part in EXPRESSIONS[name]]] = value
    driver = seen(render(case.driver, replace(face, coefficients=coefficients)))
    return replace(case, portrait=replace(case.portrait, driving=driver))


def test_all_of_it_is_small_enough_for_a_repository() -> None:
    assert (WORLD / LORA).is_file()
    assert all((WORLD / name).is_file() for name in NEEDED)
    assert sum(file.stat().st_size for file in WORLD.iterdir()) < 75e6

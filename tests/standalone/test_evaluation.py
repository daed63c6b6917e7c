"""The evaluation by an oracle that knows what is in every rendering, and the command on random weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lib_hellomeme.face.edit import retarget
from lib_hellomeme.face.track import FaceFrame
from lib_hellomeme.settings import Settings
from lib_hellomeme.standalone import evaluate as command
from lib_hellomeme.standalone import evaluation
from lib_hellomeme.standalone.command_line import main
from lib_hellomeme.standalone.evaluate import as_text, bounds, evaluate
from lib_hellomeme.standalone.evaluation import (
    FULL,
    NO_CONTROL,
    NO_REFERENCE,
    SLIDERS,
    TEXT,
    TRUTH,
    UNITS,
    VARIANTS,
    arc,
    correlation,
    expressed,
    is_monotone,
    score,
    share,
    turned,
    unlike_driver,
    unlike_reference,
    unseen_case,
)
from lib_hellomeme.standalone.world import NEEDED, NEEDED_FOR_UNITS
from lib_hellomeme.training.identity import Identity
from lib_hellomeme.training.measure import (
    HAIR_SHAPES,
    Measured,
    MeasuringNetwork,
    own_error,
    region_colours,
    true_shapes,
)
from lib_hellomeme.training.people import Rendering, render
from tests.random_weights import write_checkpoint, write_networks

CASES = [unseen_case(3, index, 64) for index in range(6)]
WEIGHTS = (0.0, 0.5, 1.0)


class Oracle:
    """Knows what it has seen rendered, by the pixels."""

    def __init__(self) -> None:
        self.known: dict[bytes, Measured] = {}
        self.network = MeasuringNetwork()

    def tell(self, rendering: Rendering, who: Identity) -> np.ndarray:
        hair, attributes = true_shapes(who)
        shapes = np.array([*np.eye(len(HAIR_SHAPES))[hair], *attributes])
        face = rendering.face
        colours = region_colours(rendering.picture, rendering.regions)
        self.known[rendering.picture.tobytes()] = Measured(face.rotation, face.coefficients, colours, shapes)
        return rendering.picture

    def draw(self, who: Identity, face: FaceFrame) -> np.ndarray:
        return self.tell(render(who, face), who)


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> Oracle:
    oracle = Oracle()

    def measured(network: MeasuringNetwork, pictures: Sequence[np.ndarray]) -> list[Measured]:
        return [oracle.known[picture.tobytes()] for picture in pictures]

    monkeypatch.setattr(evaluation, "measured", measured)
    for case in CASES:
        oracle.draw(case.who, case.portrait.reference.face)
        oracle.draw(case.driver, case.portrait.driving.face)
        oracle.tell(case.wanted, case.who)
    return oracle


def test_cases_follow_from_seed_and_index():
    again, other = unseen_case(3, 0, 64), unseen_case(4, 0, 64)
    assert np.array_equal(CASES[0].wanted.picture, again.wanted.picture)
    assert not np.array_equal(CASES[0].wanted.picture, other.wanted.picture)
    assert CASES[0].who != CASES[1].who
    for case in CASES:
        assert np.array_equal(case.face.rotation, case.portrait.driving.face.rotation)
        assert np.array_equal(case.face.translation, case.portrait.reference.face.translation)


def test_a_perfect_answer_has_no_error(oracle: Oracle):
    found = score(oracle.network, CASES, [case.wanted.picture for case in CASES])
    assert found["pose"] == pytest.approx(0, abs=1e-6)
    assert all(found[name] == pytest.approx(1) for name in ("jaw open", "eyes closed", "smile", "brows up"))
    assert found["identity"] < 0.1


def test_wrong_answers_have_errors(oracle: Oracle):
    kept = score(oracle.network, CASES, [case.portrait.reference.picture for case in CASES])
    assert kept["identity"] == 0
    assert kept["pose"] > 10
    swapped = score(oracle.network, CASES, [case.portrait.driving.picture for case in CASES])
    assert swapped["pose"] == pytest.approx(0, abs=1e-6)
    assert swapped["identity"] > 0.3


def test_the_way_to_the_driver_is_measured(oracle: Oracle):
    for name, effect in (("pose_weight", turned), ("expression_weight", expressed)):
        pictures = [
            [
                oracle.draw(
                    case.who,
                    retarget(
                        case.portrait.driving.face, case.portrait.reference.face, Settings.from_mapping({name: weight})
                    ),
                )
                for case in CASES
            ]
            for weight in WEIGHTS
        ]
        assert effect(oracle.network, CASES, pictures) == pytest.approx(WEIGHTS, abs=0.05)


def test_identity_between_two_people(oracle: Oracle):
    pictures = [[getattr(case.portrait, side).picture for case in CASES] for side in ("reference", "driving")]
    of_reference, of_driver = (effect(oracle.network, CASES, pictures) for effect in (unlike_reference, unlike_driver))
    assert of_reference[0] == of_driver[1] == 0
    assert of_reference[1] == of_driver[0] > 0.3


def test_arcs_and_shares():
    start, end = np.array([0.1, 0.2, -0.3]), np.array([0.1, 0.2, 0.2])
    assert np.linalg.norm(arc(start, end)) == pytest.approx(0.5)
    assert np.allclose(arc(start, start), 0)
    ways = np.random.default_rng(0).normal(size=(4, 3))
    assert share(0.7 * ways, ways) == pytest.approx(0.7)


def test_correlations_and_monotony():
    assert correlation([0, 1, 2], [1, 3, 5]) == pytest.approx(1)
    assert correlation([1, 1, 1], [1, 3, 5]) == 0
    assert is_monotone([0, 0, 1], rises=True)
    assert is_monotone([3, 2, 2], rises=False)
    assert not is_monotone([0, 2, 1], rises=True)
    assert not is_monotone([1, 1], rises=True)
    assert not is_monotone([1, 2], rises=False)


def test_bounds_are_the_promised_ones():
    good = {"pose": 5.9, "jaw open": 0.81, "eyes closed": 0.9, "smile": 0.8, "brows up": 0.95, "identity": 0.1}
    variants = {name: dict(good) for name in VARIANTS}
    variants[NO_CONTROL]["pose"], variants[NO_REFERENCE]["identity"] = 17.8, 0.31
    effect = {"moves": "it", "values": [0, 1], "numbers": [0, 1], "monotone": True}
    assert all(bound["kept"] for bound in bounds(variants, {"weight": [effect]}).values())
    worse = {"pose": 6.1, "smile": 0.79, "identity": 0.11}
    variants[FULL] |= worse
    broken = {
        name
        for name, bound in bounds(variants, {"weight": [effect | {"monotone": False}]}).items()
        if not bound["kept"]
    }
    assert broken == {
        "pose error, degrees",
        "pose error, of that with control off",
        "identity error, of that with the reference off",
        "correlation, smile",
        "weight: it, monotone",
    }


@pytest.fixture(scope="module")
def random_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_checkpoint(folder / NEEDED[0])
    write_networks(folder)
    torch.manual_seed(0)
    save_file(MeasuringNetwork().state_dict(), folder / NEEDED[-1])
    return folder


@pytest.fixture(autouse=True)
def _few_renderings(monkeypatch: pytest.MonkeyPatch):
    """Random networks are measured as well by 4 people as by 64."""
    monkeypatch.setattr(command, "own_error", partial(own_error, count=4))


def test_the_command_writes_the_same_report_twice(random_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    size = ["--size", "64", "--steps", "1", "--device", "cpu"]
    words = ["evaluate", "--world", str(random_world), "--count", "2", "--sweep", "1", "--seed", "5", "--json", *size]
    assert main([*words, "--sheet", str(tmp_path / "sheet.png")]) == 0
    first = json.loads(capsys.readouterr().out)
    assert (tmp_path / "sheet.png").is_file()
    assert set(first["variants"]) == set(VARIANTS)
    assert set(first["sliders"]) == set(SLIDERS)
    assert first["measuring"]["pose"] > 0
    again, _ = evaluate(random_world, count=2, swept=1, seed=5, size=64, steps=1, device="cpu")
    assert again == first
    text = as_text(first)
    assert "2 unseen people, seed 5" in text
    assert "NOT KEPT" in text
    assert all(name in text for name in (*VARIANTS, *SLIDERS))


def test_reference_units_alone_need_no_networks(random_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    for name in NEEDED_FOR_UNITS:
        (tmp_path / name).symlink_to(random_world / name)
    size = ["--size", "64", "--steps", "1", "--device", "cpu"]
    words = ["evaluate", "--world", str(tmp_path), "--count", "2", "--sweep", "2", "--references", "--json", *size]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["variants"]) == {TRUTH, TEXT}
    assert set(report["sliders"]) == set(UNITS)
    assert "style fidelity" in as_text(report)


def test_what_cannot_be_evaluated_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture):
    for words, said in (
        (["--world", str(tmp_path)], "drawn-people.safetensors is not in"),
        (["--count", "1"], "--count must be at least 2"),
        (["--sweep", "65"], "--sweep from 0 to --count"),
        (["--sheet", "sheet.gif"], "choose such a name"),
    ):
        assert main(["evaluate", *words]) == 1
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1

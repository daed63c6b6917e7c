"""The loop: interrupted and resumed it gives the same weights, bit for bit, and nothing half written."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lib_hellomeme.errors import CheckpointError
from lib_hellomeme.training.diffusion import seeded
from lib_hellomeme.training.loop import Recipe, Run, averaged, rate_at, train
from lib_hellomeme.training.plot import plot_losses

RECIPE = Recipe(stage="toy", steps=40, seed=3, size=64, batch=8, people=1, views=2, rate=0.05)


class Killed(Exception):
    pass


class Toy:
    """A line through points; `kill_at` ends the run as a kill would."""

    def __init__(self, folder: Path, kill_at: int = -1) -> None:
        torch.manual_seed(0)
        self.networks = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Linear(16, 1))
        weight, bias = (self.networks.get_parameter(name) for name in ("0.weight", "2.bias"))
        self.rates: Mapping[nn.Parameter, float] = {weight: 0.5, bias: 0.0}
        self.folder = folder
        self.kill_at = kill_at
        self.steps: list[int] = []

    def loss(self, step: int) -> Tensor:
        if step == self.kill_at:
            raise Killed
        self.steps.append(step)
        points = torch.randn(8, 3, generator=seeded(3, step))
        return (self.networks(points) - points.sum(dim=1, keepdim=True)).square().mean()

    def validate(self) -> np.ndarray:
        return np.zeros((4, 4, 3), np.uint8)

    def export(self) -> list[Path]:
        torch.save(self.networks.state_dict(), self.folder / "toy.pt")
        return [self.folder / "toy.pt"]


@pytest.fixture
def work(tmp_path: Path) -> Callable[[str], Run]:
    def run(name: str) -> Run:
        return Run(tmp_path / name, torch.device("cpu"), workers=0, save_every=7, validate_every=20, half=False)

    return run


def run_toy(run: Run, kill_at: int = -1, recipe: Recipe = RECIPE) -> Toy:
    run.folder.mkdir(exist_ok=True)
    toy = Toy(run.folder, kill_at)
    try:
        train(toy, recipe, run)
    except Killed:
        assert kill_at >= 0
    return toy


def test_parameters_learn_at_their_own_rates(work: Callable[[str], Run]) -> None:
    torch.manual_seed(0)
    before = Toy(Path()).networks
    after = run_toy(work("one"), recipe=replace(RECIPE, steps=1)).networks
    moved = [(a - b).abs().max().item() for a, b in zip(after.parameters(), before.parameters(), strict=True)]
    # Adam's first step is as large as the rate.
    assert moved == pytest.approx([0.5 * RECIPE.rate, RECIPE.rate, RECIPE.rate, 0.0], rel=1e-2)


def test_resumed_runs_are_the_same_bit_for_bit(work: Callable[[str], Run]) -> None:
    straight = run_toy(work("straight"))
    run_toy(work("killed"), kill_at=17)
    run_toy(work("killed"), kill_at=30)
    resumed = run_toy(work("killed"))
    assert resumed.steps[0] == 28  # the last save before the second kill
    own, other = straight.networks.state_dict(), resumed.networks.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in own)
    files = [(work(name).folder / "toy.pt") for name in ("straight", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()  # the averages too
    states = [torch.load(work(name).folder / "toy" / "state.pt", weights_only=True) for name in ("straight", "killed")]
    assert states[0]["losses"] == states[1]["losses"]
    assert len(states[0]["losses"]) == RECIPE.steps


def test_it_learns(work: Callable[[str], Run]) -> None:
    run_toy(work("run"))
    losses = torch.load(work("run").folder / "toy" / "state.pt", weights_only=True)["losses"]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_a_finished_run_only_exports(work: Callable[[str], Run]) -> None:
    run_toy(work("run"))
    assert run_toy(work("run")).steps == []


def without_beginning(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    del state["begin"]
    torch.save(state, path)


def of_another_network(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    state["networks"]["3.weight"] = state["networks"].pop("2.weight")
    torch.save(state, path)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize("spoil", [without_beginning, of_another_network, cut_off])
def test_a_run_that_cannot_be_gone_on_with_is_one_line(
    work: Callable[[str], Run], spoil: Callable[[Path], None]
) -> None:
    run_toy(work("run"), kill_at=17)
    state = work("run").folder / "toy" / "state.pt"
    spoil(state)
    spoilt = state.read_bytes()
    with pytest.raises(CheckpointError, match=r"toy/state\.pt cannot be gone on with \(.+\): use another") as caught:
        run_toy(work("run"))
    assert "\n" not in str(caught.value)
    assert state.read_bytes() == spoilt  # it may have cost days, and is the user's to remove


def test_a_finished_run_is_trained_further(work: Callable[[str], Run]) -> None:
    """Interrupted too, and with a rate that rises and falls again."""
    further = replace(RECIPE, steps=60)
    for name in ("straight", "killed"):
        run_toy(work(name))
    straight = run_toy(work("straight"), recipe=further)
    assert straight.steps == list(range(40, 60))
    run_toy(work("killed"), kill_at=41, recipe=further)
    run_toy(work("killed"), kill_at=52, recipe=further)
    assert run_toy(work("killed"), recipe=further).steps[0] == 49
    states = [torch.load(work(name).folder / "toy" / "state.pt", weights_only=True) for name in ("straight", "killed")]
    assert states[0]["begin"] == states[1]["begin"] == 40
    for name, value in states[0]["average"].items():
        assert value.equal(states[1]["average"][name])
    last_rate = states[0]["optimizer"]["param_groups"][1]["lr"]
    assert last_rate == pytest.approx(RECIPE.rate * rate_at(19, 20))


@pytest.mark.parametrize(("done", "wanted"), [(20, 60), (40, 30)])
def test_neither_an_unfinished_run_nor_a_longer_one_is_given_other_steps(
    work: Callable[[str], Run], done: int, wanted: int
) -> None:
    run_toy(work("run"), kill_at=-1 if done == RECIPE.steps else done)
    with pytest.raises(CheckpointError, match=rf"holds a run with steps 40, not {wanted}"):
        run_toy(work("run"), recipe=replace(RECIPE, steps=wanted))


def test_it_shows_what_it_does(work: Callable[[str], Run], capsys: pytest.CaptureFixture[str]) -> None:
    run_toy(work("run"))
    folder = work("run").folder / "toy"
    assert sorted(path.name for path in folder.iterdir()) == ["0000020.png", "0000040.png", "loss.png", "state.pt"]
    assert cv2.imread(str(folder / "loss.png")) is not None
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("toy 40/40: loss ")
    assert last.endswith("0:00:00 left")


def test_another_recipe_is_refused(work: Callable[[str], Run]) -> None:
    run_toy(work("run"), kill_at=20)
    with pytest.raises(CheckpointError, match=r"holds a run with seed 3, not 4: use that, or another folder"):
        run_toy(work("run"), recipe=replace(RECIPE, seed=4))


def test_averaged_weights_are_lent() -> None:
    network = nn.Linear(2, 1)
    own = {name: value.clone() for name, value in network.state_dict().items()}
    average = {name: torch.zeros_like(value) for name, value in own.items()}

    def use() -> None:
        with averaged(network, average):
            assert network.weight.abs().sum() == 0
            assert not torch.is_grad_enabled()
            raise Killed

    with pytest.raises(Killed):
        use()
    assert all(torch.equal(own[name], value) for name, value in network.state_dict().items())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_freed_memory_stays_with_the_process() -> None:
    """In a process of its own: it cannot be taken back."""
    code = """
import resource
from pathlib import Path
import numpy as np
from lib_hellomeme.training.loop import keep_freed_memory

def kept():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    before = resident()
    array = np.ones(64 << 20, np.uint8)
    del array
    return (resident() - before) >> 20

print(kept())
keep_freed_memory()
print(kept())
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    returned, kept = (int(line) for line in printed.split())
    assert returned < 8
    assert kept > 56


def test_the_rate_rises_and_falls() -> None:
    rates = [rate_at(step, 1000) for step in range(1000)]
    top = int(np.argmax(rates))
    assert max(rates) == 1
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0 < rates[-1] < 0.06
    assert all(0 < rate_at(step, 3) <= 1 for step in range(3))


@pytest.mark.parametrize("losses", [[0.5], [1.0, 1.0, 1.0], list(np.geomspace(10, 1e-5, 300)), [0.0, 1.0]])
def test_losses_are_drawn(losses: list[float]) -> None:
    picture = plot_losses(losses, "toy")
    assert picture.shape == (400, 800, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3

"""The one training loop: every stage goes through it. A killed run goes on where it last saved, bit for bit on a CPU;
a finished one that is to have more steps is trained further, with a learning rate that rises and falls once more.

All that is random in a step is drawn from (seed, step), so step, weights, their average and the optimizer are a run's
whole state; it lies in one file that is replaced at once.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lib_hellomeme.errors import CheckpointError
from lib_hellomeme.training.plot import plot_losses

AVERAGE_DECAY = 0.999
WARMUP = 200  # steps
LAST_RATE = 0.05  # share of the learning rate at the end
GRADIENT_LIMIT = 1.0


@dataclass(frozen=True)
class Recipe:
    """What a run's weights depend on; a resumed run must have the same."""

    stage: str
    steps: int
    seed: int
    size: int  # px
    batch: int
    people: int  # in the pool that batches are taken from
    views: int  # of each of them
    rate: float  # learning rate


@dataclass(frozen=True)
class Run:
    """Where and how a run works; nothing here changes what it learns, save the arithmetic's last digits."""

    folder: Path
    device: torch.device
    workers: int
    save_every: int
    validate_every: int
    half: bool
    """Mixed precision: much on a GPU, a third off a step of the VAE's on a CPU with bfloat16, nothing off a UNet's."""

    def precision(self) -> torch.autocast:
        return mixed_precision(self.device.type, enabled=self.half)


def mixed_precision(device: str, enabled: bool = True) -> torch.autocast:
    """bfloat16 where it is safe. Without autocast's cache: in older versions of torch a weight that was first cast
    where no gradient is kept comes from there without one afterwards."""
    return torch.autocast(device, torch.bfloat16, enabled=enabled, cache_enabled=False)


EVEN_RATES: Mapping[nn.Parameter, float] = {}


class Stage(Protocol):
    """One thing to train."""

    @property
    def networks(self) -> nn.Module:
        """All that is trained, and nothing else."""
        ...

    @property
    def rates(self) -> Mapping[nn.Parameter, float]:
        """Factors of the learning rate for parameters of their own; 1 for those that are not in it."""
        ...

    def loss(self, step: int) -> Tensor:
        """The loss of this step's batch, with a graph back to `networks`."""
        ...

    def validate(self) -> np.ndarray:
        """A sheet of what the networks do now, RGB uint8."""
        ...

    def export(self) -> list[Path]:
        """Write the files that users load, from `networks`."""
        ...


def train(stage: Stage, recipe: Recipe, run: Run) -> list[Path]:
    """Train until `recipe.steps`, going on from what lies in the run's folder. Returns the exported files.

    Raises CheckpointError where the folder holds a run of another recipe, or one that cannot be read.
    """
    folder = run.folder / recipe.stage
    folder.mkdir(parents=True, exist_ok=True)
    networks = stage.networks.to(run.device).train()
    parameters = [parameter for parameter in networks.parameters() if parameter.requires_grad]
    rates = [recipe.rate * stage.rates.get(parameter, 1.0) for parameter in parameters]
    groups = [{"params": [parameter], "lr": rate} for parameter, rate in zip(parameters, rates, strict=True)]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    average = {name: value.detach().clone() for name, value in networks.state_dict().items()}
    losses, begin = _resume(folder / "state.pt", recipe, networks, optimizer, average)
    clock = Clock(recipe, len(losses))
    for step in range(len(losses), recipe.steps):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * rate_at(step - begin, recipe.steps - begin)
        with run.precision():
            loss = stage.loss(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, GRADIENT_LIMIT)
        optimizer.step()
        _move_average(average, networks, step)
        losses.append(loss.item())
        done, last = step + 1, step + 1 == recipe.steps
        clock.report(done, losses)
        if done % run.save_every == 0 or last:
            _save(folder / "state.pt", recipe, networks, optimizer, average, losses, begin)
            write_picture(folder / "loss.png", plot_losses(losses, recipe.stage))
        if done % run.validate_every == 0 or last:
            with averaged(networks, average), run.precision():
                write_picture(folder / f"{done:07d}.png", stage.validate())
    with averaged(networks, average):
        return stage.export()


def keep_freed_memory() -> None:
    """glibc asks the system for large arrays anew each time, a quarter of a step of the VAE's on a CPU; not from now on
    (mallopt(3): M_MMAP_THRESHOLD, M_TRIM_THRESHOLD)."""
    if sys.platform == "linux":
        most = 2**31 - 1
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
        if mallopt is not None:
            mallopt(-3, most)
            mallopt(-1, most)


def rate_at(step: int, steps: int) -> float:
    """The learning rate's factor: a linear warm-up, then half a cosine down to LAST_RATE."""
    warmup = min(WARMUP, max(1, steps // 10))
    share = max(step - warmup, 0) / max(steps - warmup, 1)
    return min((step + 1) / warmup, 1.0) * (LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * share)))


class Clock:
    """Tells how far a run is and how long it will take, now and then."""

    def __init__(self, recipe: Recipe, first: int, interval: float = 10.0) -> None:
        self.recipe = recipe
        self.first = first
        self.interval = interval
        self.start = self.told = time.monotonic()

    def report(self, done: int, losses: list[float]) -> None:
        now = time.monotonic()
        if now - self.told < self.interval and done < self.recipe.steps:
            return
        self.told = now
        pace = (now - self.start) / (done - self.first)
        left = round(pace * (self.recipe.steps - done))
        mean = sum(losses[-100:]) / len(losses[-100:])
        print(
            f"{self.recipe.stage} {done}/{self.recipe.steps}: loss {mean:.4f}, {pace:.2f} s a step, "
            f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left",
            flush=True,
        )


@contextmanager
def averaged(networks: nn.Module, average: Mapping[str, Tensor]) -> Iterator[None]:
    """The networks with their averaged weights, ready for inference, and afterwards as they were."""
    own = {name: value.detach().clone() for name, value in networks.state_dict().items()}
    try:
        networks.load_state_dict(average)
        networks.eval()
        with torch.no_grad():
            yield
    finally:
        networks.load_state_dict(own)
        networks.train()


def write_picture(path: Path, picture: np.ndarray) -> None:
    """RGB uint8 to a PNG that appears whole or not at all."""
    encoded = cv2.imencode(".png", picture[..., ::-1])[1]
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to; what was written takes the place of `path` when the block ends well."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_network(path: Path, network: nn.Module) -> None:
    """The network's tensors in float16."""
    tensors = {name: value.half().cpu().contiguous() for name, value in network.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary)


@torch.no_grad()
def _move_average(average: dict[str, Tensor], networks: nn.Module, step: int) -> None:
    decay = min(AVERAGE_DECAY, (1 + step) / (10 + step))
    for name, value in networks.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)


def _save(
    path: Path,
    recipe: Recipe,
    networks: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, Tensor],
    losses: list[float],
    begin: int,
) -> None:
    state = {
        "recipe": asdict(recipe),
        "networks": networks.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": dict(average),
        "losses": losses,
        "begin": begin,
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)


def _resume(
    path: Path, recipe: Recipe, networks: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]
) -> tuple[list[float], int]:
    """Load what `_save` wrote, if anything. Returns the losses so far, one a step, and the step that the learning
    rate's schedule counts from."""
    if not path.is_file():
        return [], 0
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        losses, begin = state["losses"], state["begin"]
        further = len(losses) == state["recipe"]["steps"] < recipe.steps
        _check_recipe(path.parent, state["recipe"], recipe, further)
        networks.load_state_dict(state["networks"])
        optimizer.load_state_dict(state["optimizer"])
        for name, value in state["average"].items():
            average[name].copy_(value)
    except (KeyError, ValueError, RuntimeError, EOFError, UnpicklingError) as error:
        problem = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path} cannot be gone on with ({type(error).__name__}: {problem}): use another folder, or remove it to "
            "begin this stage anew"
        ) from error
    return losses, len(losses) if further else begin


def _check_recipe(folder: Path, made: Mapping[str, Any], recipe: Recipe, further: bool) -> None:
    wanted = asdict(recipe)
    for name, value in made.items():
        if value != wanted[name] and not (name == "steps" and further):
            raise CheckpointError(
                f"{folder} holds a run with {name} {value}, not {wanted[name]}: use that, or another folder"
            )

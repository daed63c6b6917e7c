"""Reads the golden cases (tests/goldens/README.md) of the folder HELLOMEME_GOLDENS, or of the copy beside this file."""

from __future__ import annotations

import json
import math
import os
import zlib
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

FOLDER = Path(os.environ.get("HELLOMEME_GOLDENS") or Path(__file__).parent / "goldens")

KINDS = frozenset(
    (
        *("reference", "control", "control_proj", "motion", "pd_fgc"),  # networks alone
        *("unet", "unet_motion", "reference_only", "controlnet_reference"),  # in a UNet
    )
)

NOT_COVERED: tuple[str, ...] = ()
"""Names of cases, with wildcards, whose part of the project is not built yet. Emptied as the project grows."""


@dataclass(frozen=True)
class Case:
    name: str
    kind: str
    inputs: dict[str, Any]
    outputs: dict[str, dict[str, Any]]
    index: dict[str, Any]
    """The whole entry of index.json."""

    def input(self, *path: str) -> Tensor:
        """The seeded input at this place of the index; clamping and scaling, as its note says, are the caller's."""
        shape: Any = self.inputs
        for part in path:
            shape = shape[part]
        return self.seeded((".", "/")["unet" in self.kind].join(path), shape)

    def seeded(self, name: str, shape: list[int] | tuple[int, ...]) -> Tensor:
        """An input that has no entry of its own in the index."""
        return seeded(f"{self.name}/{name}", shape)


def all_cases() -> list[Case]:
    index = json.loads((FOLDER / "index.json").read_text())
    return [Case(name, entry["kind"], entry["inputs"], entry["outputs"], entry) for name, entry in index.items()]


def is_covered(case: Case) -> bool:
    return not any(fnmatch(case.name, pattern) for pattern in NOT_COVERED)


def cases(*kinds: str) -> list[Case]:
    """The cases of these kinds that are built, for pytest.mark.parametrize(..., ids=lambda case: case.name)."""
    return [case for case in all_cases() if case.kind in kinds and is_covered(case)]


def seeded(key: str, shape: list[int] | tuple[int, ...]) -> Tensor:
    """Standard normal numbers that the key alone decides."""
    generator = np.random.RandomState(zlib.crc32(key.encode()))
    return torch.from_numpy(np.asarray(generator.standard_normal(shape), np.float32))


def seeded_weight(name: str, shape: list[int] | tuple[int, ...]) -> Tensor:
    """The weight of this name, as goldens/README.md scales it."""
    value = seeded(name, shape)
    if len(shape) >= 2:
        return value / math.sqrt(math.prod(shape[1:]))
    if name.endswith("running_var"):
        return 1 + 0.1 * value.abs()
    return 1 + 0.1 * value if name.endswith(".weight") else 0.1 * value


@torch.no_grad()
def seed_weights(module: nn.Module, prefix: str = "") -> None:
    """Give every tensor of the state dict its seeded value, the name's beginning being `prefix`."""
    for name, tensor in module.state_dict().items():
        if not name.endswith((".pe", "num_batches_tracked")):
            tensor.copy_(seeded_weight(prefix + name, tuple(tensor.shape)))
    module.eval().requires_grad_(False)


def published_tensors(layout: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published checkpoint."""
    table = json.loads((FOLDER / "checkpoints.json").read_text())
    entry = table[layout]
    return {name: tuple(shape) for name, shape in table[entry.get("same_as", layout)]["tensors"].items()}


def expect(case: Case, output_name: str, tensor: Tensor) -> None:
    """Same shape, and every stored element within 1e-4 + 1e-3 * |value|."""
    described = case.outputs[output_name]
    assert list(tensor.shape) == described["shape"], f"{case.name} {output_name}: shape {list(tensor.shape)}"
    stored = load_file(FOLDER / f"{case.name}.safetensors")[output_name]
    got = tensor.detach().float().cpu().flatten()[:: described["step"]]
    excess = (got - stored).abs() - 1e-3 * stored.abs()
    assert excess.max() <= 1e-4, f"{case.name} {output_name}: off by {(got - stored).abs().max():.2e}"

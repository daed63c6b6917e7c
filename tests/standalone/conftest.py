"""A narrow checkpoint and narrow networks with random weights, written once, and a host that draws with them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from lib_hellomeme.standalone.checkpoint import StableDiffusion, load_checkpoint
from lib_hellomeme.standalone.host import EmbeddedHost
from tests.random_weights import write_checkpoint, write_networks


class Weights(NamedTuple):
    checkpoint: Path
    networks: Path  # folder


class Faces(NamedTuple):
    """RGB uint8 pictures of the same woman: as photographed, and mirrored."""

    reference: np.ndarray
    mirrored: np.ndarray


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    folder = tmp_path_factory.mktemp("weights")
    write_networks(folder / "networks")
    return Weights(write_checkpoint(folder / "narrow.safetensors"), folder / "networks")


@pytest.fixture(scope="session")
def host(weights: Weights) -> EmbeddedHost:
    return EmbeddedHost(weights.checkpoint, weights.networks, device="cpu")


@pytest.fixture
def model(weights: Weights) -> StableDiffusion:
    """One's own copy."""
    return load_checkpoint(weights.checkpoint)


@pytest.fixture(scope="session")
def faces() -> Faces:
    from skimage import data

    photo = data.astronaut()[20:290, 90:360]
    return Faces(np.ascontiguousarray(photo), np.ascontiguousarray(photo[:, ::-1]))

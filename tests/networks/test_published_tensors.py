"""The state dicts are exactly the published ones. Nothing is allocated: the networks are built on the meta device."""

import pytest
import torch

from tests.goldens_format import published_tensors
from tests.networks.test_goldens_modules import NETWORKS


@pytest.mark.parametrize("layout", NETWORKS)
def test_names_and_shapes(layout):
    with torch.device("meta"):
        tensors = NETWORKS[layout]().state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == published_tensors(layout)

"""The layout against facts that are known of SD1.5's file, and against the LDM code that defined it."""

from __future__ import annotations

from math import prod

import pytest
import torch
from torch import nn

from lib_hellomeme.standalone.layout import TEXT, UNET, VAE, Structure, tensor_shapes
from tests.random_weights import NARROW
from tests.tiny import ldm_unet


@pytest.mark.parametrize(
    ("prefix", "tensors", "parameters"),
    [(UNET, 686, 859_520_964), (VAE, 248, 83_653_863), (TEXT, 196, 123_060_480)],
)
def test_as_many_tensors_and_parameters_as_sd15(prefix, tensors, parameters):
    shapes = [shape for name, shape in tensor_shapes(Structure()).items() if name.startswith(prefix)]
    assert len(shapes) == tensors
    assert sum(map(prod, shapes)) == parameters


def test_the_unets_tensors_are_ldms():
    expected = {name: tuple(tensor.shape) for name, tensor in ldm_unet().state_dict().items()}
    shapes = tensor_shapes(NARROW)
    assert {name.removeprefix(UNET): shape for name, shape in shapes.items() if name.startswith(UNET)} == expected


@pytest.mark.parametrize("half", ["Encoder", "Decoder"])
def test_the_vaes_tensors_are_ldms(half):
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in ldm_vae(half).state_dict().items()}
    prefix = f"{VAE}{half.lower()}."
    shapes = tensor_shapes(Structure())
    assert {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)} == expected


def ldm_vae(half: str, width: int = 128) -> nn.Module:
    from ldm.modules.diffusionmodules import model

    options = {"ch": width, "out_ch": 3, "ch_mult": (1, 2, 4, 4), "num_res_blocks": 2, "attn_resolutions": []}
    return getattr(model, half)(**options, in_channels=3, resolution=256, z_channels=4, double_z=True)

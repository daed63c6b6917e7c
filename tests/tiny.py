"""The small SD1.5-shaped UNet of the goldens, as diffusers and LDM build it, with the same seeded weights.

Forge's UNet joins in where the environment variable HELLOMEME_FORGE names the folder of a Forge checkout and the tests
are run by an interpreter that has Forge's packages.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch import nn

from lib_hellomeme.unet.diffusers import DiffusersPort
from lib_hellomeme.unet.forge import ForgePort
from lib_hellomeme.unet.ldm import LdmPort
from lib_hellomeme.unet.port import Call, Port, Rows
from tests.goldens_format import seed_weights

WIDTHS = (32, 64, 128, 128)
CONTEXT_WIDTH = 64
CONFIG: dict[str, Any] = {
    "block_out_channels": WIDTHS,
    "cross_attention_dim": CONTEXT_WIDTH,
    "attention_head_dim": 8,
}  # diffusers'


def diffusers_unet() -> nn.Module:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(**CONFIG)
    seed_weights(unet)
    return unet


def ldm_unet() -> nn.Module:
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

    unet = UNetModel(
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=WIDTHS[0],
        channel_mult=[width // WIDTHS[0] for width in WIDTHS],
        attention_resolutions=[4, 2, 1],
        num_res_blocks=2,
        num_heads=8,
        use_spatial_transformer=True,
        transformer_depth=1,
        context_dim=CONTEXT_WIDTH,
        legacy=False,
    )
    load_from_diffusers(unet)
    return unet


def load_from_diffusers(unet: nn.Module) -> None:
    """Give a UNet of LDM's layout the weights that the diffusers UNet has."""
    weights = diffusers_unet().state_dict()
    unet.load_state_dict({name: weights[other] for other, name in ldm_names(tuple(unet.state_dict())).items()})
    unet.eval().requires_grad_(False)


@cache
def ldm_names(names: tuple[str, ...]) -> dict[str, str]:
    """diffusers' name of each tensor of an LDM UNet: diffusers' own converter tells, fed with numbered tensors."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    numbered = {f"model.diffusion_model.{name}": torch.tensor(index) for index, name in enumerate(names)}
    config = {"layers_per_block": 2, "class_embed_type": None, "addition_embed_type": None, "num_class_embeds": None}
    return {other: names[int(index)] for other, index in convert_ldm_unet_checkpoint(numbered, config).items()}


def forge_port(checkout: str) -> ForgePort:
    """Forge's own UNet and patcher, imported from a checkout by an interpreter that has Forge's packages."""
    sys.path[:0] = [checkout, f"{checkout}/packages_3rdparty"]
    with mock.patch.object(
        sys, "argv", [sys.argv[0], "--always-cpu"]
    ):  # Forge reads the command line when it is imported
        from backend.nn.unet import IntegratedUNet2DConditionModel
        from backend.patcher.unet import UnetPatcher

    unet = IntegratedUNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        model_channels=WIDTHS[0],
        channel_mult=[width // WIDTHS[0] for width in WIDTHS],
        num_res_blocks=[2] * 4,
        num_heads=8,
        use_spatial_transformer=True,
        transformer_depth=[1] * 6 + [0] * 2,
        transformer_depth_middle=1,
        transformer_depth_output=[1] * 9 + [0] * 3,
        context_dim=CONTEXT_WIDTH,
    )
    load_from_diffusers(unet)
    model: Any = nn.Module()
    model.diffusion_model = unet
    model.computation_dtype = torch.float32
    return ForgePort(UnetPatcher(model, torch.device("cpu"), torch.device("cpu")).clone())


class FusedPort(LdmPort):
    """As A1111's port is unless the webui's state forbids it."""

    def fused(self) -> bool:
        return True


# Each is built once: what leaves no trace can be shared.
PORTS: dict[str, Callable[[], Port]] = {
    "diffusers": cache(lambda: DiffusersPort(diffusers_unet())),
    "ldm": cache(lambda: LdmPort(ldm_unet())),
    "fused": cache(lambda: FusedPort(ldm_unet())),
}
if "HELLOMEME_FORGE" in os.environ:
    PORTS["forge"] = cache(lambda: forge_port(os.environ["HELLOMEME_FORGE"]))


def uncond_cond(frames: int = 1) -> Rows:
    """Rows [uncond, cond], each for so many frames."""
    return Rows((True,) * frames + (False,) * frames, tuple(range(frames)) * 2)


def run_unet(port: Port, call: Call) -> torch.Tensor:
    """Call the port's UNet as a sampler would, so that whatever is attached acts."""
    if isinstance(port, DiffusersPort):
        return port.unet(call.sample, call.timestep, call.context, return_dict=False)[0]
    if isinstance(port, ForgePort):
        options = dict(port.patcher.model_options["transformer_options"])  # as calc_cond_uncond_batch does
        return port.unet(call.sample, call.timestep, context=call.context, transformer_options=options)
    assert isinstance(port, LdmPort)
    return port.unet(call.sample, call.timestep, context=call.context)

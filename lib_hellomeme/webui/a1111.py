"""AUTOMATIC1111 1.10: LDM's UNet, moved and cast by the webui itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib_hellomeme.checkpoints.twin import twin
from lib_hellomeme.errors import HostError
from lib_hellomeme.unet.ldm import LdmPort
from lib_hellomeme.unet.port import Call, Rows
from lib_hellomeme.webui.step import Step

CONTROLNET_MARK = 1024


class A1111Port(LdmPort):
    """Where the UNet runs, which is not where its parameters lie between calls (--medvram), nor their type (fp8).

    controlnet: sd-webui-controlnet's script, whose reference units run bare passes of their own; None without it.
    """

    def __init__(self, unet: nn.Module, controlnet: Any = None) -> None:
        super().__init__(unet)
        self.controlnet = controlnet

    def fused(self) -> bool:
        """The webui's default is slower, several times so without CUDA, and takes memory that grows with the square
        of what is looked at. Elsewhere fused attention is not to be had, or the layers do more than project."""
        from modules import shared

        plain = not shared.loaded_hypernetworks and not shared.opts.upcast_attn
        return plain and self.device.type in ("cpu", "cuda")

    def in_foreign_pass(self) -> bool:
        network = getattr(self.controlnet, "latest_network", None)
        if network is None:
            return False
        return "Write" in (network.attention_auto_machine.name, network.gn_auto_machine.name)

    @property
    def dtype(self) -> torch.dtype:
        from modules import devices

        return devices.dtype_unet

    @property
    def device(self) -> torch.device:
        from modules import devices

        return devices.device


def check(p: Any) -> None:
    from modules import sd_unet

    if sd_unet.current_unet is not None:
        raise HostError("A replacement UNet (TensorRT or the like) is active: set Settings > SD Unet to None.")
    if not getattr(p.sd_model, "is_sd1", False):
        raise HostError("HelloMeme needs an SD1.5 checkpoint: this one is of another kind.")


def port(p: Any) -> A1111Port:
    return A1111Port(p.sd_model.model.diffusion_model, controlnet(p))


def controlnet(p: Any) -> Any:
    """sd-webui-controlnet's script, None where it is not installed."""
    return next((script for script in p.scripts.alwayson_scripts if script.title() == "ControlNet"), None)


def refuse_references(p: Any) -> None:
    """Raises HostError where ControlNet's reference units are at the same layers."""
    network = getattr(controlnet(p), "latest_network", None)
    if network is not None and any(
        unit.control_model_type.name == "AttentionInjection" for unit in network.control_params
    ):
        raise HostError("ControlNet's own reference units are on: use them or these, not both.")


def port_of(p: Any, unet: nn.Module) -> A1111Port:
    return A1111Port(unet)


def first_stage(p: Any) -> nn.Module:
    return p.sd_model.first_stage_model


def text_model(p: Any, tensors: Mapping[str, Tensor], file: str) -> Callable[[Any], Tensor]:
    from modules import devices

    embedder = p.sd_model.cond_stage_model
    named = {name.removeprefix("cond_stage_model."): tensor for name, tensor in tensors.items()}
    return twin(embedder, named, devices.device, next(embedder.parameters()).dtype, file)


def reserve(p: Any, size: int) -> None:
    """Nothing: this webui does not plan its memory."""


def encode(p: Any, picture: np.ndarray) -> Tensor:
    from modules import devices

    model = p.sd_model
    model.first_stage_model.to(devices.dtype_vae)
    pixels = torch.from_numpy(picture).to(devices.device, devices.dtype_vae).permute(2, 0, 1)[None] / 127.5 - 1
    return model.scale_factor * model.encode_first_stage(pixels).mode()


def alphas_cumprod(p: Any) -> Tensor:
    return p.sd_model.alphas_cumprod


def empty_prompt(p: Any) -> Tensor:
    return p.sd_model.cond_stage_model([""])


def describe(step: Step, sample: Tensor, timestep: Tensor, context: Tensor, options: Any) -> Call | None:
    """A step's rows are all conds, then all unconds, called in this order in one or more pieces; the unconds may be
    left out (NGMS, skipping early steps)."""
    if step.said is None:  # somebody runs the UNet outside a denoising step
        return None
    context = _unmarked(context)
    conds, unconds = len(step.said.text_cond), len(step.said.text_uncond)
    rows = range(step.called, step.called + len(sample))
    if rows.stop > conds + unconds:
        raise HostError(
            "Another extension calls the UNet beside the webui's own steps, so prompt and negative prompt cannot be "
            "told apart: switch it off."
        )
    step.called = rows.stop
    prompts = step.said.denoiser.sampler.sampler_extra_args["cond"].batch  # of each picture, parts joined by AND
    picture = [index for index, parts in enumerate(prompts) for _ in parts] + list(range(unconds))
    chosen = Rows(tuple(row >= conds for row in rows), picture=tuple(picture[row] for row in rows))
    return Call(sample, timestep, context, chosen, step.progress)


def _unmarked(context: Tensor) -> Tensor:
    """Without the token that sd-webui-controlnet puts before each prompt, and takes away within its own forward."""
    return context[:, 1:] if (context[:, 0].abs() - CONTROLNET_MARK).abs().mean() < 1e-3 else context

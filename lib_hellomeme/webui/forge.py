"""Forge: its own UNet class, patched through a clone of its UnetPatcher, and memory that Forge plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib_hellomeme.checkpoints.twin import twin
from lib_hellomeme.errors import HostError
from lib_hellomeme.unet.forge import ForgePort
from lib_hellomeme.unet.port import Call, Rows
from lib_hellomeme.webui.step import Step

UNCOND = 1  # in Forge's cond_or_uncond


def check(p: Any) -> None:
    if find_spec("backend") is None:
        raise HostError("This variant of Forge is not supported: use Forge or AUTOMATIC1111 1.10.")
    if not getattr(p.sd_model, "is_sd1", False):
        raise HostError("HelloMeme needs an SD1.5 checkpoint: this one is of another kind.")


def port(p: Any) -> ForgePort:
    return ForgePort(p.sd_model.forge_objects.unet)


def port_of(p: Any, unet: nn.Module) -> ForgePort:
    return ForgePort(p.sd_model.forge_objects.unet, unet)


def first_stage(p: Any) -> nn.Module:
    return p.sd_model.forge_objects.vae.first_stage_model


def text_model(p: Any, tensors: Mapping[str, Tensor], file: str) -> Callable[[Any], Tensor]:
    """The patcher that moves and patches Forge's text encoder never sees the other one."""
    from backend import memory_management

    engine = copy(p.sd_model.text_processing_engine)
    own = engine.text_encoder.transformer
    named = {name.removeprefix("cond_stage_model.transformer."): tensor for name, tensor in tensors.items()}
    named |= {name: value for name, value in own.named_parameters() if name.startswith("text_projection")}  # unused
    device, dtype = memory_management.text_encoder_device(), memory_management.text_encoder_dtype()
    engine.text_encoder = SimpleNamespace(transformer=twin(own, named, device, dtype, file))
    return engine


def reserve(p: Any, size: int) -> None:
    patcher = p.sd_model.forge_objects.unet.clone()
    patcher.add_extra_preserved_memory_during_sampling(size)
    p.sd_model.forge_objects.unet = patcher


def encode(p: Any, picture: np.ndarray) -> Tensor:
    vae = p.sd_model.forge_objects.vae.clone()
    vae.patcher.set_model_vae_regulation(lambda posterior: posterior.mode())
    latents = vae.encode(torch.from_numpy(picture)[None].float() / 255)  # (1, H, W, 3) in [0, 1]
    return vae.first_stage_model.process_in(latents)


def refuse_references(p: Any) -> None:
    """Nothing: whatever else patches attention stacks with ours."""


def alphas_cumprod(p: Any) -> Tensor:
    return p.sd_model.forge_objects.unet.model.predictor.alphas_cumprod


def empty_prompt(p: Any) -> Tensor:
    return p.sd_model.get_learned_conditioning([""])


def describe(step: Step, sample: Tensor, timestep: Tensor, context: Tensor, options: Any) -> Call | None:
    """A call holds one or more chunks, each wholly cond or uncond, with a row for each picture of the batch."""
    if step.said is None or "cond_or_uncond" not in options:  # somebody runs the UNet outside a denoising step
        return None
    chunks = options["cond_or_uncond"]
    rows = len(sample) // len(chunks)
    uncond = tuple(chunk == UNCOND for chunk in chunks for _ in range(rows))
    return Call(sample, timestep, context, Rows(uncond, picture=tuple(range(rows)) * len(chunks)), step.progress)

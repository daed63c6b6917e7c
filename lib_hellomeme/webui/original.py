"""The published modes x1 and x2 in a webui: another SD1.5 file's networks look at the reference.

The table is that of standalone/original.py, with one difference: what LoRAs change in the text encoder is not added to
the original's. Prompts go through the webui's own machinery, with its weights, clip skip and prompt editing, and the
networks are the webui's own classes with the file's tensors, each in memory for one use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import lcm
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib_hellomeme.checkpoints.twin import twin
from lib_hellomeme.errors import HostError, MissingFileError
from lib_hellomeme.recipes.hellomeme import OWN, Source
from lib_hellomeme.settings import Settings
from lib_hellomeme.standalone.checkpoint import read_tensors
from lib_hellomeme.standalone.drawing import LATENT_SCALE
from lib_hellomeme.standalone.layout import UNET, VAE
from lib_hellomeme.unet.port import Call, Port
from lib_hellomeme.webui.host import Host
from lib_hellomeme.webui.weights import folder

Conds = tuple[Any, Any]  # the webui's schedules of the prompts and of the negative prompts, the latter perhaps None


@dataclass(frozen=True)
class Look:
    """What encodes the reference, what the write pass runs on, and the drawing's prompts, None for the webui's own."""

    encode: Callable[[np.ndarray], Tensor]
    source: Source = OWN
    conds: Conds | None = None

    def give_prompts(self, sampler: Any) -> None:
        """Let a sampler that is about to sample draw from these prompts."""
        if self.conds is not None:
            given = sampler.sampler_extra_args
            uncond = None if given["uncond"] is None else self.conds[1]
            sampler.sampler_extra_args = {**given, "cond": self.conds[0], "uncond": uncond}


def find_original(settings: Settings) -> Path | None:
    """The file that these settings look with, None for the checkpoint's own networks. Raises MissingFileError."""
    name, mode = settings.original, settings.reference_pass
    if mode == "checkpoint":
        return None
    if not name:
        raise MissingFileError(
            f"Reference pass {mode} needs another SD1.5 file: name one of the webui's checkpoints in Original SD1.5."
        )
    from modules import sd_models

    if (known := sd_models.checkpoint_aliases.get(name)) is not None:
        return Path(known.filename)
    for file in sorted(folder().rglob("*")):
        if name in (file.name, file.stem) and file.is_file():
            return file
    raise MissingFileError(f"Original SD1.5: there is no {name} among the webui's checkpoints, nor in {folder()}.")


def look_of(p: Any, host: Host, settings: Settings, conds: Conds) -> Look:
    """The look of these settings for a sampling that is given these `conds`. Raises HelloMemeError."""
    file = find_original(settings)
    own = partial(host.encode, p)
    if file is None:
        return Look(own)
    theirs = _conds_of(p, host, file)
    if settings.reference_pass == "x2":
        return Look(own, Source(context=_translation(conds, theirs)))
    port = host.port(p)

    @contextmanager
    def unet() -> Iterator[Port]:
        tensors = _part(file, UNET)
        yield host.port_of(p, twin(port.unet, tensors, port.device, port.dtype, file.name))

    return Look(partial(_encode, host, p, file), Source(unet=unet), theirs)


def _part(file: Path, prefix: str) -> dict[str, Tensor]:
    tensors, _ = read_tensors(file)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _encode(host: Host, p: Any, file: Path, picture: np.ndarray) -> Tensor:
    """As host.encode, but by the file's VAE."""
    vae, device = host.first_stage(p), host.port(p).device
    dtype = next(vae.parameters()).dtype
    tensors = _part(file, VAE)

    def layer(name: str) -> Any:
        inside = {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}
        return twin(vae.get_submodule(name), inside, device, dtype, file.name)

    pixels = torch.from_numpy(picture).to(device, dtype).permute(2, 0, 1)[None] / 127.5 - 1
    mean, _ = layer("quant_conv")(layer("encoder")(pixels)).chunk(2, dim=1)
    return mean.float() * LATENT_SCALE


def _conds_of(p: Any, host: Host, file: Path) -> Conds:
    """What the webui's machinery makes of p's prompts with the file's text encoder."""
    from modules import devices, prompt_parser, sd_samplers, shared

    tensors, _ = read_tensors(file)
    text = {name: tensor for name, tensor in tensors.items() if name.startswith("cond_stage_model.")}
    model = SimpleNamespace(get_learned_conditioning=host.text_model(p, text, file.name))
    hires = getattr(p, "is_hr_pass", False)
    prompts, negative = (p.hr_prompts, p.hr_negative_prompts) if hires else (p.prompts, p.negative_prompts)
    second = None
    if hires:
        config = sd_samplers.find_sampler_config(p.hr_sampler_name or p.sampler_name)
        second = config.total_steps(p.hr_second_pass_steps or p.steps)
    schedule = (p.firstpass_steps, second, shared.opts.use_old_scheduling)
    with devices.autocast():
        return (
            prompt_parser.get_multicond_learned_conditioning(model, prompts, *schedule),
            prompt_parser.get_learned_conditioning(model, negative, *schedule),
        )


def _translation(conds: Conds, theirs: Conds) -> Callable[[Call], Tensor]:
    """From the prompts of a call to what another text encoder made of them. Raises HostError where one is unknown."""
    if conds[1] is None:  # Forge at CFG 1
        theirs = (theirs[0], None)
    pairs = list(zip(_tensors(conds), _tensors(theirs), strict=True))

    def find(row: Tensor) -> Tensor:
        for own, other in pairs:
            kept = min(len(row), len(own))  # webuis bring a row to the length of its neighbours
            if torch.equal(row[:kept], own[:kept].to(row)):
                return other[:kept].to(row)
        raise HostError(
            "Another extension changes the prompts, so the reference pass x2 cannot read them by the original text "
            "encoder: switch it off, or choose another reference pass."
        )

    def context(call: Call) -> Tensor:
        rows = [find(row) for row in call.context]
        length = lcm(*map(len, rows))
        return torch.stack([row.repeat(length // len(row), 1) for row in rows])  # to attention as before

    return context


def _tensors(conds: Conds) -> Sequence[Tensor]:
    """Every (tokens, width) of the webui's schedules, in their order."""
    cond, uncond = conds
    schedules = [part.schedules for picture in cond.batch for part in picture] + list(uncond or [])
    return [scheduled.cond for schedule in schedules for scheduled in schedule]

"""Whose eyes look at the reference: the checkpoint's own, or an original SD1.5's as in the published application.

`append_pipline_weights` in HelloMeme's utils.py, with its `stylize`: the checkpoint always draws and decodes.

|                          | checkpoint | x1                     | x2                 |
| ------------------------ | ---------- | ---------------------- | ------------------ |
| VAE that encodes         | checkpoint | original               | checkpoint         |
| UNet of the write pass   | checkpoint | original               | checkpoint, LoRA   |
| its prompts              | checkpoint | original               | original, LoRA     |
| the drawing's prompts    | checkpoint | original, LoRA         | checkpoint, LoRA   |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from torch import Tensor

from lib_hellomeme.errors import MissingFileError
from lib_hellomeme.recipes.hellomeme import OWN, Source
from lib_hellomeme.settings import Settings
from lib_hellomeme.standalone.checkpoint import StableDiffusion, loaded_part
from lib_hellomeme.standalone.drawing import Drawing, encode_picture, encode_prompts
from lib_hellomeme.standalone.lora import add_lora
from lib_hellomeme.standalone.prompts import Prompts
from lib_hellomeme.unet.diffusers import DiffusersPort
from lib_hellomeme.unet.port import Port


@dataclass(frozen=True)
class Look:
    """What encodes the reference, what the write pass runs on, and the drawing's prompts, None for the checkpoint's."""

    encode: Callable[[np.ndarray], Tensor]
    source: Source = OWN
    prompts: Prompts | None = None


def look_of(settings: Settings, drawing: Drawing, model: StableDiffusion, loras: Sequence[tuple[str, float]]) -> Look:
    """The look that `settings.reference_pass` names, for a model that has these LoRAs already. The original's networks
    are in memory for the length of one use each. Raises MissingFileError or CheckpointError."""
    own = partial(encode_picture, model.vae)
    if settings.reference_pass == "checkpoint":
        return Look(own)
    file = settings.original
    if not file:
        raise MissingFileError(
            f"the reference pass {settings.reference_pass} needs another SD1.5 file: add --original FILE"
        )
    with loaded_part(file, "text_encoder", model.unet.device, model.unet.dtype) as text_encoder:
        plain = encode_prompts(text_encoder, drawing)
        for lora, weight in loras:
            add_lora(replace(model, text_encoder=text_encoder), lora, weight, parts=["text_encoder"])
        changed = encode_prompts(text_encoder, drawing)
    if settings.reference_pass == "x2":
        return Look(own, Source(context=changed.of))

    @contextmanager
    def unet() -> Iterator[Port]:
        with loaded_part(file, "unet", model.unet.device, model.unet.dtype) as network:
            yield DiffusersPort(network)

    def encode(picture: np.ndarray) -> Tensor:
        with loaded_part(file, "vae", model.vae.device, model.vae.dtype) as vae:
            return encode_picture(vae, picture)

    return Look(encode, Source(unet, plain.of), changed)

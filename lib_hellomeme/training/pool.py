"""Rendered people as latents, made once: what base, style and adapters are trained on."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib_hellomeme.training.data import Person, Request, counted, draw_people, draw_person
from lib_hellomeme.training.loop import replacing
from lib_hellomeme.training.models import LATENT_SCALE, posterior, rebuild, without_silent_resnets

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


@dataclass(frozen=True)
class Pool:
    """People by views. latents are the posterior's mean, scaled as a UNet takes them."""

    latents: Tensor  # (people, views, 4, h, w)
    tokens: Tensor  # (people, 77) of the captions
    rotations: Tensor  # (people, views, 3) radians
    translations: Tensor  # (people, views, 3)
    coefficients: Tensor  # (people, views, 51)


def make_pool(
    path: Path,
    request: Request,
    people: int,
    vae: AutoencoderKL,
    tokens: Callable[[str], list[int]],
    workers: int,
    draw_one: Callable[[Request, int], Person] = draw_person,
) -> Pool:
    """The pool in the file `path`; where that holds another one, or none, it is drawn, encoded and written first."""
    made_of = json.dumps({**request._asdict(), "people": people, "vae": _what_encodes(vae)})
    if not path.is_file() or _made_of(path) != made_of:
        lighter = without_silent_resnets(vae)
        drawn = counted(draw_people(request, range(people), workers, draw_one), people)
        records = [_record(person, lighter, tokens) for person in drawn]
        stacked = {name: torch.stack([record[name] for record in records]) for name in records[0]}
        with replacing(path) as temporary:
            save_file(stacked, temporary, {"made_of": made_of})
    return Pool(**load_file(path))


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: np.ndarray) -> Tensor:
    """(n, H, W, 3) RGB uint8 to scaled latents (n, 4, H/8, W/8), the posterior's mean."""
    return posterior(vae, to_tensor(pictures).to(vae.device)).mean * LATENT_SCALE


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor) -> np.ndarray:
    """Scaled latents (n, 4, h, w) to pictures (n, 8h, 8w, 3), RGB uint8."""
    return to_pictures(rebuild(vae, latents.to(vae.device) / LATENT_SCALE))


def to_tensor(pictures: np.ndarray) -> Tensor:
    """(n, H, W, 3) uint8 to (n, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pictures(tensor: Tensor) -> np.ndarray:
    """(n, 3, H, W) in [-1, 1] to (n, H, W, 3) uint8."""
    scaled = (tensor.detach().float().cpu() * 127.5 + 127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).numpy()


def sheet(rows: list[np.ndarray]) -> np.ndarray:
    """Rows of pictures (n, H, W, 3) to one picture."""
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


def _record(person: Person, vae: AutoencoderKL, tokens: Callable[[str], list[int]]) -> dict[str, Tensor]:
    pictures = person.pictures if person.comic is None else person.comic
    return {
        "latents": encode(vae, pictures).half().cpu().contiguous(),
        "tokens": torch.tensor(tokens(person.identity.caption)),
        "rotations": torch.tensor(np.stack([face.rotation for face in person.faces]), dtype=torch.float32),
        "translations": torch.tensor(np.stack([face.translation for face in person.faces]), dtype=torch.float32),
        "coefficients": torch.tensor(np.stack([face.coefficients for face in person.faces]), dtype=torch.float32),
    }


def _what_encodes(vae: AutoencoderKL) -> int:
    """A checksum of what latents depend on: the decoder may go on learning."""
    assert vae.quant_conv is not None
    weights = {**vae.encoder.state_dict(), **vae.quant_conv.state_dict()}
    return zlib.crc32(b"".join(value.cpu().numpy().tobytes() for value in weights.values()))


def _made_of(path: Path) -> str:
    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get("made_of", "")

"""One picture, drawn by an SD1.5 checkpoint as the webuis draw it, with or without a reenactment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lib_hellomeme.errors import SettingsError
from lib_hellomeme.standalone.checkpoint import StableDiffusion
from lib_hellomeme.standalone.layout import LATENT_CHANNELS
from lib_hellomeme.standalone.prompts import Prompts, encode_prompt
from lib_hellomeme.standalone.samplers import sampler_named
from lib_hellomeme.unet.diffusers import DiffusersPort
from lib_hellomeme.unet.port import AnyTap, Call, Port, Rows

if TYPE_CHECKING:
    from transformers import CLIPTextModel

LATENT_SCALE = 0.18215
LATENT_SIDE = 8  # px


@dataclass(frozen=True)
class Drawing:
    """What a webui's own panel asks for. `Drawing(...)` raises SettingsError for values that cannot be drawn."""

    prompt: str = ""
    negative_prompt: str = ""
    steps: int = 20
    cfg: float = 7.0
    seed: int = 0
    sampler: str = "Euler"
    width: int = 512  # px
    height: int = 512

    def __post_init__(self) -> None:
        sampler_named(self.sampler)
        if not 1 <= self.steps <= 1000:
            raise SettingsError(f"Steps: {self.steps} is outside 1 to 1000.")
        if not 1 <= self.cfg <= 100:
            raise SettingsError(f"CFG scale: {self.cfg:g} is outside 1 to 100.")
        if not 0 <= self.seed < 2**63:
            raise SettingsError(f"Seed: {self.seed} is outside 0 to 2^63.")
        if any(side % LATENT_SIDE or not 64 <= side <= 4096 for side in (self.width, self.height)):
            raise SettingsError(f"Size: {self.width}x{self.height} is no pair of multiples of 8 from 64 to 4096.")


def encode_prompts(text_encoder: CLIPTextModel, drawing: Drawing) -> Prompts:
    """What this text encoder makes of both prompts."""
    return Prompts(encode_prompt(text_encoder, drawing.negative_prompt), encode_prompt(text_encoder, drawing.prompt))


class Attachable(Protocol):
    """The taps of one sampling, such as a Reenactment."""

    @property
    def port(self) -> Port: ...

    def taps(self) -> Sequence[AnyTap]: ...

    def begin(self, call: Call) -> Call | None: ...


@torch.inference_mode()
def draw(
    model: StableDiffusion,
    drawing: Drawing,
    recipe: Attachable | None = None,
    progress: bool = True,
    prompts: Prompts | None = None,
) -> np.ndarray:
    """RGB uint8 (height, width, 3). The same seed gives the same picture; `progress` shows a bar. `prompts` are the
    drawing's where something else than the model's text encoder made them."""
    prompts = prompts or encode_prompts(model.text_encoder, drawing)
    guidance = Guidance(model.unet, prompts.uncond, prompts.cond, drawing.cfg, drawing.steps)
    sampler = sampler_named(drawing.sampler)
    attached = nullcontext()
    if recipe is not None:
        attached = recipe.port.attach(recipe.taps(), guidance.describe, recipe.begin)
    bar = tqdm(total=len(sampler.sigmas(drawing.steps)) - 1, desc="Drawing", unit="step", disable=not progress)

    def predict(x: Tensor, timestep: Tensor) -> Tensor:
        predicted = guidance(x, timestep)
        bar.update()
        return predicted

    with bar, attached:
        latents = sampler.sample(
            predict, drawing.steps, _noise(drawing, model.unet.device), velocity=model.prediction == "v"
        )
    return decode_latents(model.vae, latents)


@torch.inference_mode()
def decode_latents(vae: Any, latents: Tensor) -> np.ndarray:
    """Scaled latents (1, 4, h, w) to RGB uint8 (8h, 8w, 3), cut off and not rounded, as the webuis do."""
    decoded = vae.decode((latents / LATENT_SCALE).to(vae.dtype)).sample.float()
    shares = ((decoded + 1) / 2).clamp(0, 1)
    return (255.0 * shares[0].permute(1, 2, 0).cpu().numpy()).astype(np.uint8)


@torch.inference_mode()
def encode_picture(vae: Any, picture: np.ndarray) -> Tensor:
    """RGB uint8 (H, W, 3), H and W multiples of 8, to scaled latents (1, 4, H/8, W/8): the mean of the posterior."""
    shares = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    return vae.encode((shares * 2 - 1).to(vae.device, vae.dtype)).latent_dist.mean.float() * LATENT_SCALE


@dataclass
class Guidance:
    """Classifier-free guidance: rows [uncond, cond] in one call, or in two where one prompt has more chunks than the
    other; cond alone where the scale is 1.

    uncond, cond (1, tokens, width). It knows which rows and which step the UNet is at, for `port.attach`.
    """

    unet: Any  # diffusers'
    uncond: Tensor
    cond: Tensor
    scale: float
    steps: int
    step: int = 0
    rows: Rows = field(default_factory=lambda: Rows((False,)))

    def __call__(self, x: Tensor, timestep: Tensor) -> Tensor:
        """What the UNet predicts of x (1, 4, h, w), which is scaled to variance one."""
        if self.scale == 1:
            guided = self._run(x, timestep, self.cond, False)
        else:
            if self.uncond.shape == self.cond.shape:
                both = self._run(x.expand(2, -1, -1, -1), timestep, torch.cat([self.uncond, self.cond]), True, False)
                uncond, cond = both.chunk(2)
            else:
                uncond = self._run(x, timestep, self.uncond, True)
                cond = self._run(x, timestep, self.cond, False)
            guided = uncond + self.scale * (cond - uncond)
        self.step += 1
        return guided

    def describe(self, sample: Tensor, timestep: Tensor, context: Tensor, options: Mapping[str, Any]) -> Call:
        """What a port asks at the beginning of a call."""
        return Call(sample, timestep, context, self.rows, self.step / self.steps)

    def _run(self, x: Tensor, timestep: Tensor, context: Tensor, *uncond: bool) -> Tensor:
        self.rows = Rows(uncond)
        dtype = self.unet.dtype
        return self.unet(x.to(dtype), timestep, encoder_hidden_states=context.to(dtype), return_dict=False)[0].float()


def port_of(model: StableDiffusion) -> DiffusersPort:
    """What a reenactment of this model is attached by."""
    return DiffusersPort(model.unet)


def _noise(drawing: Drawing, device: torch.device) -> Callable[[], Tensor]:
    """Drawn on the CPU, so that every device gets the same."""
    generator = torch.Generator().manual_seed(drawing.seed)
    shape = (LATENT_CHANNELS, drawing.height // LATENT_SIDE, drawing.width // LATENT_SIDE)
    return lambda: torch.randn(shape, generator=generator)[None].to(device)

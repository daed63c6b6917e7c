"""The embedded host: a checkpoint and the HelloMeme networks, ready to draw portraits that follow a driving face."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lib_hellomeme.errors import HostError, MissingFileError
from lib_hellomeme.recipes.hellomeme import Reenactment
from lib_hellomeme.recipes.reenact import Networks, Portrait, limits, load_networks, read_portrait, reenact
from lib_hellomeme.settings import Settings
from lib_hellomeme.standalone.checkpoint import load_checkpoint
from lib_hellomeme.standalone.drawing import Drawing, draw
from lib_hellomeme.standalone.lora import add_lora
from lib_hellomeme.standalone.original import Look, look_of
from lib_hellomeme.unet.diffusers import DiffusersPort

DEFAULT_MODELS = Path(__file__).parents[2] / "models" / "hellomeme"
PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Drawn:
    """The picture, RGB uint8 (H, W, 3), and what the faces looked like to the extractor."""

    picture: np.ndarray
    portrait: Portrait
    warnings: tuple[str, ...]  # one line for everything that was not found, had to be chosen or cannot be done


class EmbeddedHost:
    """Holds what is loaded. `models` is the folder of the HelloMeme weight files; `loras` are files with their weights.

    Raises HostError for a device that is not there, CheckpointError for files that cannot be used.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike[str] | None,
        models: str | os.PathLike[str] = DEFAULT_MODELS,
        loras: Sequence[tuple[str, float]] = (),
        device: str | None = None,
        precision: str | None = None,
    ) -> None:
        if checkpoint is None:
            raise MissingFileError("no checkpoint was given: add --checkpoint FILE, an SD1.5 checkpoint in one file")
        self.device = choose_device(device)
        precision = precision or ("float16" if self.device.type == "cuda" else "float32")
        self.models = Path(models)
        self._networks: Networks | None = None  # those drawn with last
        self.model = load_checkpoint(checkpoint, self.device, PRECISIONS[precision])
        self._loras = list(loras)
        for file, weight in loras:
            add_lora(self.model, file, weight)

    def reenact(
        self, reference: np.ndarray, driving: np.ndarray, settings: Settings, drawing: Drawing, progress: bool = True
    ) -> Drawn:
        """Draw the person of one picture with the pose and expression of another, both RGB uint8 (H, W, 3).

        Raises FaceError, MissingFileError and CheckpointError. `progress` shows a bar.
        """
        return self.follow(read_portrait(settings, reference, driving, self.models), settings, drawing, progress)

    def follow(self, portrait: Portrait, settings: Settings, drawing: Drawing, progress: bool = True) -> Drawn:
        """`reenact` where the faces are known already."""
        look = self._look(settings, drawing)
        reenactment = self.reenactment(portrait, settings, drawing, look)
        warnings = [*portrait.warnings, *limits(settings, self._networks_of(settings), portrait)]
        return Drawn(draw(self.model, drawing, reenactment, progress, look.prompts), portrait, tuple(warnings))

    def reenactment(
        self, portrait: Portrait, settings: Settings, drawing: Drawing, look: Look | None = None
    ) -> Reenactment:
        """The taps with which `follow` draws."""
        look = look or self._look(settings, drawing)
        networks, port = self._networks_of(settings), DiffusersPort(self.model.unet)
        return reenact(
            port, networks, settings, portrait, drawing.width, drawing.height, look.encode, source=look.source
        )

    def draw(self, drawing: Drawing, progress: bool = True) -> np.ndarray:
        """What the checkpoint draws by itself, RGB uint8 (H, W, 3)."""
        return draw(self.model, drawing, progress=progress)

    def _look(self, settings: Settings, drawing: Drawing) -> Look:
        return look_of(settings, drawing, self.model, self._loras)

    def _networks_of(self, settings: Settings) -> Networks:
        kept, wanted = self._networks, (settings.generation, settings.expression)
        if kept is None or (kept.generation, kept.expression) != wanted:
            kept = self._networks = load_networks(settings.generation, self.models, expression=settings.expression)
        return kept


def choose_device(name: str | None = None) -> torch.device:
    """The device of this name, or the best there is: CUDA, MPS, CPU. Raises HostError where it is not there."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise HostError(f"There is no device {name!r} here: choose cpu, or leave --device out.") from error
    return device

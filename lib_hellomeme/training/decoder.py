"""The stage `decoder`: the VAE's decoder goes on alone, and has the faces in mind.

The encoder stays, and with it the latents, so all that has learned from them still fits. Stability AI's sd-vae-ft-mse
was made like this from SD1.5's VAE.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor

from lib_hellomeme.training.autoencoder import VaeStage, load_vae, rebuilding_error, with_silent_resnets
from lib_hellomeme.training.data import feature_weights
from lib_hellomeme.training.loop import Recipe, Run
from lib_hellomeme.training.models import posterior, rebuild, without_silent_resnets

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

NEAR = 1 / 16  # of the picture's side: so far about small features places count as much as the features do


def near_features(regions: np.ndarray) -> np.ndarray:
    """float32 of the regions' shape (n, H, W): `feature_weights`, spread to their surroundings.

    With the features alone weighted, too broad a brow costs less than one that is missed by as much.
    """
    side = round(NEAR * regions.shape[-1]) | 1
    return np.stack([cv2.dilate(weights, np.ones((side, side))) for weights in feature_weights(regions)])


class DecoderStage(VaeStage):
    weights = staticmethod(near_features)

    def __init__(self, recipe: Recipe, run: Run) -> None:
        super().__init__(recipe, run)
        self.networks = self.vae.decoder.requires_grad_(True)

    def begin(self) -> AutoencoderKL:
        return without_silent_resnets(load_vae(self.run.folder, self.run.device, "vae"))

    def loss(self, step: int) -> Tensor:
        pictures, weights = self._chosen(self.recipe.batch, step)
        with torch.no_grad():
            latents = posterior(self.vae, pictures).mean
        return rebuilding_error(rebuild(self.vae, latents), pictures, weights)

    def export(self) -> list[Path]:
        """The whole VAE, under diffusers' names."""
        return self.save(with_silent_resnets(self.vae))

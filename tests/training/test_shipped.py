"""The weights that the repository carries do what they were trained for, on people they have not seen."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from lib_hellomeme.standalone.world import WORLD
from lib_hellomeme.training.autoencoder import load_vae
from lib_hellomeme.training.data import FEATURES, Request, draw_people
from lib_hellomeme.training.measuring import through
from lib_hellomeme.training.pool import encode


@pytest.fixture(scope="module")
def people() -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, 128, 128, 3) and regions (n, 128, 128) with a seed of their own."""
    drawn = list(draw_people(Request(seed=90210, size=128, views=1), range(12)))
    return np.concatenate([one.pictures for one in drawn]), np.concatenate([one.regions for one in drawn])


def test_the_vae_keeps_features_and_colours(people: tuple[np.ndarray, np.ndarray]) -> None:
    pictures, regions = people
    rebuilt = through(load_vae(WORLD, torch.device("cpu")), pictures)
    error = np.abs(rebuilt.astype(float) - pictures)
    small = np.stack(
        [cv2.resize(cv2.resize(one, (16, 16), interpolation=cv2.INTER_AREA), (128, 128)) for one in pictures]
    )
    plain = np.abs(small.astype(float) - pictures)
    features = np.isin(regions, FEATURES)
    assert error.mean() < 0.55 * plain.mean()
    assert error[features].mean() < 0.5 * plain[features].mean()
    shown, wanted = (one.reshape(len(one), -1, 3).mean(axis=1) for one in (rebuilt.astype(float), pictures))
    assert np.abs(shown - wanted).max() < 8


def test_latents_have_sd15s_scale(people: tuple[np.ndarray, np.ndarray]) -> None:
    latents = encode(load_vae(WORLD, torch.device("cpu")), people[0])
    assert latents.shape[1:] == (4, 16, 16)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(4), rtol=0, atol=0.25)
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 0.4

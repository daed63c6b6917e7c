"""The weights that the repository carries do what they were trained for, on people they have not seen."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from lib_hellomeme.standalone.checkpoint import StableDiffusion, load_checkpoint
from lib_hellomeme.standalone.drawing import Drawing, draw
from lib_hellomeme.standalone.evaluation import Artist, unlike_reference, unseen_case
from lib_hellomeme.standalone.host import EmbeddedHost
from lib_hellomeme.standalone.world import WORLD
from lib_hellomeme.training.base import CHECKPOINT
from lib_hellomeme.training.data import FEATURES, Person, Request, draw_people
from lib_hellomeme.training.measure import EXPRESSIONS, MeasuringNetwork, load_measuring_network, own_error
from lib_hellomeme.training.measuring import FILE, through
from lib_hellomeme.training.people import Region
from lib_hellomeme.training.pool import encode


@pytest.fixture(scope="module")
def model() -> StableDiffusion:
    return load_checkpoint(WORLD / CHECKPOINT)


@pytest.fixture(scope="module")
def network() -> MeasuringNetwork:
    return load_measuring_network(WORLD / FILE)


@pytest.fixture(scope="module")
def people() -> list[Person]:
    """In one view, 128 px, with a seed of their own."""
    return list(draw_people(Request(seed=90210, size=128, views=1), range(12)))


def pictures_of(people: list[Person]) -> np.ndarray:
    """(n, 128, 128, 3)"""
    return np.concatenate([one.pictures for one in people])


def test_the_vae_keeps_features_and_colours(model: StableDiffusion, people: list[Person]) -> None:
    pictures, regions = pictures_of(people), np.concatenate([one.regions for one in people])
    rebuilt = through(model.vae, pictures)
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


def test_latents_have_sd15s_scale(model: StableDiffusion, people: list[Person]) -> None:
    latents = encode(model.vae, pictures_of(people))
    assert latents.shape[1:] == (4, 16, 16)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(4), rtol=0, atol=0.25)
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 0.4


def test_captions_say_who_is_drawn(model: StableDiffusion, people: list[Person]) -> None:
    """Drawn as users draw, backgrounds and clothes have the caption's colours, and not another person's caption's."""
    wishes = [Drawing(one.identity.caption, steps=10, cfg=4.0, seed=1, width=128, height=128) for one in people]
    drawn = np.stack([draw(model, wish, progress=False) for wish in wishes]).astype(float)
    for region, rows in ((Region.BACKGROUND, slice(0, 8)), (Region.CLOTHES, slice(118, 128))):
        colours = np.stack([np.median(one.pictures[0][one.regions[0] == region], axis=0) for one in people])
        middle = slice(48, 80) if region == Region.CLOTHES else slice(None)
        shown = np.median(drawn[:, rows, middle].reshape(len(people), -1, 3), axis=1)
        error = np.linalg.norm(shown[:, None] - colours, axis=2)
        own, other = error.diagonal(), error[~np.eye(len(people), dtype=bool)]
        assert own.mean() < 0.5 * other.mean(), region


def test_measuring_tells_pose_expression_and_identity(network: MeasuringNetwork) -> None:
    own = own_error(network, seed=90211, count=48)
    assert own["pose"] < 4
    assert min(own[name] for name in EXPRESSIONS) > 0.85
    assert own["same person"] < 0.15 * own["other person"]


def test_reference_only_draws_the_reference(network: MeasuringNetwork) -> None:
    """With an empty prompt, more of the person the further the unit's weight goes; at 0 this is plain text-to-image."""
    cases = [unseen_case(90210, index, 128) for index in range(4)]
    artist = Artist(EmbeddedHost(WORLD / CHECKPOINT, WORLD, device="cpu"), 128, 8, 3.0, lambda: None)
    pictures = [[artist.with_unit(case, "", weight=weight) for case in cases] for weight in (0.0, 1.0)]
    plain, whole = unlike_reference(network, cases, pictures)
    assert whole < 0.8 * plain

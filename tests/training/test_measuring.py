"""The stage `measure`: what is known of a person in a mirror, and what the VAE makes of people."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib_hellomeme.face.track import ARKIT_INDEX
from lib_hellomeme.training.data import Person
from lib_hellomeme.training.faces import coefficients, face_state
from lib_hellomeme.training.identity import random_identity
from lib_hellomeme.training.measuring import mirrored, through
from lib_hellomeme.training.models import new_vae
from lib_hellomeme.training.people import render
from lib_hellomeme.training.pool import decode, encode


def one_sided() -> Person:
    """Turned, tilted, winking with one eye and smiling with one corner; bald, as hair is parted on one side."""
    identity = random_identity(np.random.default_rng(5))
    identity = replace(identity, hair_shape="bald", woman=False, beard=False, glasses=None)
    expression = coefficients(eyeBlinkLeft=1.0, mouthSmileLeft=1.0, browOuterUpRight=1.0, jawOpen=0.4)
    face = face_state(128, (0.1, 0.4, 0.2), expression, centre=(0.5, 0.54))
    drawn = render(identity, face)
    return Person(identity, (drawn.face,), drawn.picture[None], drawn.regions[None], None)


def test_the_mirrored_face_is_the_face_of_the_mirrored_picture() -> None:
    person = one_sided()
    other = mirrored(person)
    again = render(person.identity, other.faces[0])
    wrong = (again.regions != person.regions[0]).mean()
    assert (again.regions != other.regions[0]).mean() < 0.15 * wrong
    assert other.faces[0].coefficients[ARKIT_INDEX["eyeBlinkRight"]] == 1.0


def test_a_mirror_in_a_mirror_is_none() -> None:
    person = one_sided()
    twice = mirrored(mirrored(person))
    assert np.array_equal(twice.pictures, person.pictures)
    assert np.array_equal(twice.regions, person.regions)
    assert np.array_equal(twice.faces[0].rotation, person.faces[0].rotation)
    assert np.array_equal(twice.faces[0].coefficients, person.faces[0].coefficients)


def test_every_picture_goes_through_the_vae(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib_hellomeme.training.measuring.AT_ONCE", 2)
    torch.manual_seed(0)
    vae = new_vae().eval()
    pictures = one_sided().pictures[:, ::2, ::2].repeat(3, axis=0)
    pictures[1:] = pictures[1:, ::-1]
    rebuilt = through(vae, pictures)
    for row in (0, 2):
        alone = decode(vae, encode(vae, pictures[row : row + 1]))[0]
        assert np.abs(rebuilt[row].astype(int) - alone).max() <= 1
    assert (rebuilt[1] != rebuilt[0]).any()

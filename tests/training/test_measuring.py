"""The stage `measure`: what is known of a person in a mirror."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lib_hellomeme.face.track import ARKIT_INDEX
from lib_hellomeme.training.data import Person
from lib_hellomeme.training.faces import coefficients, face_state
from lib_hellomeme.training.identity import random_identity
from lib_hellomeme.training.measuring import mirrored
from lib_hellomeme.training.people import render


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

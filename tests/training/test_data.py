"""What is drawn at an index depends on seed and index alone."""

from __future__ import annotations

import os
from typing import Any

import cv2
import numpy as np
import pytest

from lib_hellomeme.training.data import (
    FEATURES,
    Person,
    Request,
    draw_pairs,
    draw_people,
    draw_person,
    feature_weights,
)
from lib_hellomeme.training.people import Region

REQUEST = Request(seed=4, size=64, views=3, comic=True)


def same(one: Person, other: Person) -> bool:
    assert one.comic is not None
    return one.identity == other.identity and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("pictures", "regions", "comic")
    )


def test_people_are_the_same_whoever_draws_them() -> None:
    alone = [draw_person(REQUEST, index) for index in range(3)]
    assert all(map(same, alone, draw_people(REQUEST, range(3))))
    assert all(map(same, alone, draw_people(REQUEST, range(3), workers=1)))
    assert not same(alone[0], alone[1])


def pinned(request: Request, index: int) -> Any:
    """Instead of a person: how OpenMP is told to place the threads of the process that draws."""
    return os.environ.get("OMP_PROC_BIND")


def test_those_who_draw_are_not_pinned_to_the_core_of_the_one_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_PROC_BIND", "true")
    assert list(draw_people(REQUEST, range(2), 1, pinned)) == [None, None]
    assert os.environ["OMP_PROC_BIND"] == "true"


def test_one_person_is_one_person_in_all_views() -> None:
    person = draw_person(Request(seed=0, size=64, views=12), 0)
    stays = [np.array_equal(face.translation, person.faces[0].translation) for face in person.faces]
    assert 5 < sum(stays) < 12  # reenactment keeps the reference's place; now and then the driver's way is added
    rotations = np.stack([face.rotation for face in person.faces])
    assert (rotations.std(axis=0) > 0.03).all()


def test_pairs_differ_in_nothing_but_the_expression() -> None:
    person = draw_pairs(Request(seed=4, size=64, views=4), 0)
    assert person.identity == draw_person(REQUEST, 0).identity
    for one, other in (person.faces[:2], person.faces[2:]):
        assert np.array_equal(one.rotation, other.rotation)
        assert np.array_equal(one.translation, other.translation)
        assert not np.array_equal(one.coefficients, other.coefficients)
    assert not np.array_equal(person.faces[0].rotation, person.faces[2].rotation)
    background = np.isin(person.regions, (Region.BACKGROUND, Region.CLOTHES))
    assert np.array_equal(person.pictures[0][background[:2].all(0)], person.pictures[1][background[:2].all(0)])


def test_comics_keep_the_drawing_and_change_the_style() -> None:
    person = draw_person(REQUEST, 0)
    assert person.comic is not None
    edges = np.abs(np.diff(person.regions[0].astype(int), axis=1)) > 0
    assert person.comic[0][:, 1:][edges].mean() < person.pictures[0][:, 1:][edges].mean() - 20
    hair = person.regions[0] == Region.HAIR
    inside = cv2.erode(hair.astype(np.uint8), np.ones((5, 5))) > 0
    if inside.any():
        before, after = (np.median(one[inside], axis=0) for one in (person.pictures[0], person.comic[0]))
        assert np.argmax(before) == np.argmax(after)


def test_small_features_weigh_more() -> None:
    weights = feature_weights(np.array([[Region.SKIN, FEATURES[0]]], np.uint8))
    assert weights.tolist() == [[1.0, 4.0]]

"""Which of several faces, and who is who in the next frame."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from lib_hellomeme.errors import FaceError
from lib_hellomeme.face.track import FaceFrame
from lib_hellomeme.face.which import Person, Seen, centre, choose, match
from tests.face.samples import make_frame

GREEN, BLUE = (40, 160, 60), (50, 60, 170)


def face_at(x: float, y: float = 100.0, side: float = 60.0) -> FaceFrame:
    box = np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2])
    return replace(make_frame(width=400, height=200), box=box)


def painted(*faces: tuple[FaceFrame, tuple[int, int, int]]) -> np.ndarray:
    picture = np.full((200, 400, 3), 128, np.uint8)
    for face, colour in faces:
        assert face.box is not None
        x0, y0, x1, y1 = face.box.astype(int).tolist()
        cv2.rectangle(picture, (x0, y0), (x1, y1), colour, -1)
    return picture


FACES = [face_at(300, side=80), face_at(50, side=40), face_at(150, side=60)]


@pytest.mark.parametrize(
    ("which", "index"),
    [("largest", 0), ("smallest", 1), ("leftmost", 1), ("rightmost", 0), (0, 1), (1, 2), (2, 0)],
)
def test_by_size_place_and_number(which, index):
    assert choose(FACES, which) == index


def test_by_likeness():
    assert choose(FACES, "alike", [0.1, 0.2, 0.7]) == 2


@pytest.mark.parametrize(
    ("which", "words"), [(3, "no face number 3; there are 3"), (-1, "no face number"), ("me", "'me'")]
)
def test_what_names_no_face_is_one_line(which, words):
    with pytest.raises(FaceError, match=words) as caught:
        choose(FACES, which)
    assert "\n" not in str(caught.value)


def follow(frames: list[list[tuple[float, tuple[int, int, int], bool]]]) -> list[list[float | None]]:
    """For each frame (x, colour, whether it is found) of each face to the places of the people of the first frame."""
    people, places = [], []
    for frame in frames:
        faces = [(face_at(x), colour) for x, colour, _ in frame]
        picture = painted(*faces)
        found = [Seen.of(picture, face) for (face, _), (_, _, shown) in zip(faces, frame, strict=True) if shown]
        people = people or [Person.of(seen) for seen in found]
        pairs = match(people, found)
        for person, seen in zip(people, pairs, strict=True):
            if seen is None:
                person.missed()
            else:
                person.found(seen)
        places.append([None if seen is None else float(centre(seen.face)[0]) for seen in pairs])
    return places


@pytest.mark.parametrize("colours", [(GREEN, BLUE), (GREEN, GREEN)])
def test_two_who_cross_at_one_height_are_not_swapped(colours):
    """Where they overlap only the one in front, drawn last, is found. Also of twins: they go on as they went."""
    behind, front = colours
    frames = []
    for index in range(40):
        left, right = 50 + 7.5 * index, 350 - 7.5 * index
        frames.append([(left, behind, abs(left - right) > 40), (right, front, True)])
    places = follow(frames)
    assert None in [first for first, _ in places]
    assert places[0] == [50, 350]
    assert places[-1] == [50 + 7.5 * 39, 350 - 7.5 * 39]
    assert all(second == 350 - 7.5 * index for index, (_, second) in enumerate(places))
    assert all(first in (None, 50 + 7.5 * index) for index, (first, _) in enumerate(places))


def test_nobody_jumps_to_a_far_face():
    assert follow([[(100, GREEN, True)], [(300, GREEN, True)]])[1] == [None]


def test_who_comes_back_is_found_near_where_they_went():
    hidden = [[(100.0 + 4 * index, GREEN, index < 5 or index > 12)] for index in range(16)]
    assert follow(hidden)[-1] == [160.0]

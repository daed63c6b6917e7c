"""Which of several faces is meant, and which face of the next frame is whose."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np

from lib_hellomeme.errors import FaceError
from lib_hellomeme.face.track import FaceFrame

WhichFace = Literal["largest", "smallest", "leftmost", "rightmost", "alike"]

REACH = 0.7  # face sizes that a face may be away from where it is expected in the next frame
REACH_GAINED = 0.05  # face sizes more for each frame in which it was not seen
SLOWING = 0.95  # of an unseen face's speed, a frame
STEADY = 0.5  # part of the last speed in the expected one
LOOK_SIDE = 24  # px of the small picture by which faces are told apart
LOOK_WEIGHT = 4.0  # face sizes of distance that are as bad as the opposite colour in every pixel
LOOK_LEARNT = 0.05  # part of the newest look in the remembered one
STRANGE_LOOK = 0.15  # mean difference from the remembered look, of a face that may be somebody else's


def choose(faces: list[FaceFrame], which: WhichFace | int, likeness: list[float] | None = None) -> int:
    """The index of the chosen one of these faces, at least one.

    which: "largest" or "smallest" by the box, "leftmost" or "rightmost" in the picture, a number from the left counted
    from 0, or "alike", the one of the highest likeness. Raises FaceError for a number or a word that names none.
    """
    from_left = sorted(range(len(faces)), key=lambda index: centre(faces[index])[0])
    if isinstance(which, int):
        if not 0 <= which < len(faces):
            raise FaceError(f"there is no face number {which}; there are {len(faces)}, counted from 0")
        return from_left[which]
    if which == "leftmost":
        return from_left[0]
    if which == "rightmost":
        return from_left[-1]
    if which == "largest":
        return max(range(len(faces)), key=lambda index: size(faces[index]))
    if which == "smallest":
        return min(range(len(faces)), key=lambda index: size(faces[index]))
    if which == "alike" and likeness is not None:
        return int(np.argmax(likeness))
    raise FaceError(f"{which!r} names no face: say largest, smallest, leftmost, rightmost, alike or a number from 0")


def centre(face: FaceFrame) -> np.ndarray:
    """(2,) px: the middle of the box."""
    assert face.box is not None
    return (face.box[:2] + face.box[2:]) / 2


def size(face: FaceFrame) -> float:
    """px: the longer side of the box."""
    assert face.box is not None
    return float((face.box[2:] - face.box[:2]).max())


def look(picture: np.ndarray, face: FaceFrame) -> np.ndarray:
    """The box's content as a small picture, float32 (LOOK_SIDE, LOOK_SIDE, 3) in [0, 1]."""
    assert face.box is not None
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = np.clip(face.box, 0, [width - 1, height - 1] * 2).astype(int).tolist()
    part = picture[y0 : y1 + 1, x0 : x1 + 1]
    return cv2.resize(part, (LOOK_SIDE, LOOK_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


class Seen(NamedTuple):
    """A face of one picture, and how it looks."""

    face: FaceFrame
    look: np.ndarray

    @staticmethod
    def of(picture: np.ndarray, face: FaceFrame) -> Seen:
        return Seen(face, look(picture, face))


@dataclass(eq=False)
class Person:
    """One face over time."""

    face: FaceFrame  # where it was last seen
    look: np.ndarray
    place: np.ndarray  # (2,) px where it is expected
    speed: np.ndarray  # (2,) px a frame
    unseen: int = 0  # frames

    @staticmethod
    def of(seen: Seen) -> Person:
        return Person(seen.face, seen.look, centre(seen.face), np.zeros(2))

    def found(self, seen: Seen) -> None:
        way = (centre(seen.face) - centre(self.face)) / (self.unseen + 1)
        self.speed = self.speed * STEADY + way * (1 - STEADY)
        self.look = self.look + (seen.look - self.look) * LOOK_LEARNT
        self.face, self.place, self.unseen = seen.face, centre(seen.face) + self.speed, 0

    def missed(self) -> None:
        self.place = self.place + self.speed
        self.speed = self.speed * SLOWING
        self.unseen += 1

    def distance(self, seen: Seen) -> float:
        """How badly the face fits: in face sizes, infinite where it cannot be this one."""
        own = size(self.face)
        away = float(np.linalg.norm(centre(seen.face) - self.place)) / own
        if away > REACH + REACH_GAINED * self.unseen or not 0.5 < size(seen.face) / own < 2.0:
            return math.inf
        return away + LOOK_WEIGHT * self.strangeness(seen)

    def strangeness(self, seen: Seen) -> float:
        """Mean difference of a look from the remembered one, 0 to 1."""
        return float(np.abs(seen.look - self.look).mean())


def match(people: list[Person], faces: list[Seen]) -> list[Seen | None]:
    """For each person the face that is theirs, or None: the pairing that leaves the fewest out and fits best in all.

    All people are paired at once, so that somebody who is hidden does not take the face in front.
    """
    costs = [[person.distance(seen) for seen in faces] for person in people]
    reachable = [[place for place, cost in enumerate(row) if cost < math.inf] for row in costs]
    best: tuple[int | None, ...] = (None,) * len(people)
    best_cost = (len(people), 0.0)
    for places in itertools.product(*([*places, None] for places in reachable)):
        taken = [(index, place) for index, place in enumerate(places) if place is not None]
        cost = (len(people) - len(taken), sum(costs[index][place] for index, place in taken))
        if len({place for _, place in taken}) == len(taken) and cost < best_cost:
            best, best_cost = places, cost
    return [None if place is None else faces[place] for place in best]

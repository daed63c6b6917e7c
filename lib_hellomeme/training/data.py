"""Rendered people. Who comes at an index depends on seed and index alone, so that a run can be resumed."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from lib_hellomeme.face.track import FaceFrame
from lib_hellomeme.training.faces import random_face
from lib_hellomeme.training.identity import Identity, random_identity
from lib_hellomeme.training.people import Region, Rendering, render

FEATURES = (Region.EYE_WHITE, Region.IRIS, Region.LASHES, Region.BROW, Region.LIPS, Region.MOUTH, Region.GLASSES)
INK, PAPER = np.array([52.0, 34.0, 40.0]), np.array([252.0, 244.0, 226.0])
INKED = np.arange(256, dtype=np.uint8)  # regions that ink parts; what is dark by itself needs none
INKED[[Region.EYE_WHITE, Region.IRIS, Region.LASHES, Region.BROW, Region.EARRING]] = Region.SKIN
INKED[Region.MOUTH] = Region.LIPS


@dataclass(frozen=True, eq=False)
class Person:
    """One person in several poses and expressions, all RGB uint8 of one size."""

    identity: Identity
    faces: tuple[FaceFrame, ...]
    pictures: np.ndarray  # (views, size, size, 3)
    regions: np.ndarray  # (views, size, size)
    comic: np.ndarray | None  # (views, size, size, 3): the same as inked comics


class Request(NamedTuple):
    """What is wanted of each index."""

    seed: int
    size: int  # px
    views: int
    comic: bool = False  # draw the comics too


def draw_person(request: Request, index: int) -> Person:
    """The person with this index in `views` states; mostly at one place of the picture, as reenactment keeps it."""
    generator = np.random.default_rng([request.seed, index])
    identity = random_identity(generator)
    return _person(identity, _random_faces(generator, request.size, request.views), request.comic)


def draw_pairs(request: Request, index: int) -> Person:
    """The same person in views / 2 states, each followed by the same pose with another expression."""
    generator = np.random.default_rng([request.seed, index])
    identity = random_identity(generator)
    faces = []
    for face in _random_faces(generator, request.size, request.views // 2):
        faces += [face, replace(face, coefficients=random_face(generator, request.size).coefficients)]
    return _person(identity, faces, request.comic)


def draw_people(
    request: Request,
    indices: Iterable[int],
    workers: int = 0,
    draw_one: Callable[[Request, int], Person] = draw_person,
) -> Iterator[Person]:
    """`draw_one` for each index in order, by so many processes ahead of the reader; 0 draws in this one."""
    draw = partial(draw_one, request)
    if not workers:
        yield from map(draw, indices)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin_worker) as pool:
        remaining = iter(indices)
        with _unpinned():
            pending: list[Future[Person]] = [pool.submit(draw, index) for index in islice(remaining, 16 * workers)]
        try:
            while pending:
                person = pending.pop(0).result()
                pending += [pool.submit(draw, index) for index in islice(remaining, 1)]
                yield person
        finally:
            pool.shutdown(cancel_futures=True)


def counted(people: Iterable[Person], count: int) -> Iterable[Person]:
    """The same people, with a line that tells how many of so many have come and how long the others will take."""
    return tqdm(people, "Drawing people", count, file=sys.stderr, unit=" people", mininterval=5.0)


@contextmanager
def _unpinned() -> Iterator[None]:
    """Processes that are started meanwhile do not have OpenMP pin them, all to one core, as the user may have it pin
    this one."""
    pinned = os.environ.pop("OMP_PROC_BIND", None)
    try:
        yield
    finally:
        if pinned is not None:
            os.environ["OMP_PROC_BIND"] = pinned


def _begin_worker() -> None:
    cv2.setNumThreads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))  # not the core that the parent may be pinned to


def _random_faces(generator: np.random.Generator, size: int, count: int) -> list[FaceFrame]:
    faces = [random_face(generator, size) for _ in range(count)]
    stays = generator.random(count) < 0.75
    return [
        replace(face, translation=faces[0].translation) if stay else face
        for face, stay in zip(faces, stays, strict=True)
    ]


def _person(identity: Identity, faces: Sequence[FaceFrame], inked: bool) -> Person:
    drawn = [render(identity, face) for face in faces]
    return Person(
        identity,
        tuple(one.face for one in drawn),
        np.stack([one.picture for one in drawn]),
        np.stack([one.regions for one in drawn]),
        np.stack([comic(one) for one in drawn]) if inked else None,
    )


def comic(rendering: Rendering) -> np.ndarray:
    """The style that the demo's LoRA learns: washed-out colours on paper, ink where regions meet. RGB uint8."""
    size = rendering.regions.shape[0]
    thickness = max(2, round(size / 48))
    kernel = np.ones((thickness, thickness), np.uint8)
    outlines = cv2.morphologyEx(cv2.LUT(rendering.regions, INKED), cv2.MORPH_GRADIENT, kernel) > 0
    ink = cv2.GaussianBlur(outlines.astype(np.float32), (3, 3), 0)[..., None]
    washed = rendering.picture * 0.7 + PAPER * 0.3
    return np.clip(washed * (1 - ink) + INK * ink, 0, 255).astype(np.uint8)


def feature_weights(regions: np.ndarray, weight: float = 4.0) -> np.ndarray:
    """float32 of the regions' shape: `weight` on eyes, brows, mouth and glasses, which are small, and 1 elsewhere."""
    return np.where(np.isin(regions, FEATURES), weight, 1.0).astype(np.float32)

"""The renderer: the same parameters give the same pixels, and every parameter is seen where it should be."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_hellomeme.face.camera import head_translation, rotation_angles
from lib_hellomeme.face.mean_face import mean_face
from lib_hellomeme.face.pose import PUBLISHED_OFFSET, fit_face
from lib_hellomeme.face.track import ARKIT_NAMES
from lib_hellomeme.training.faces import CENTRE, coefficients, face_state, random_face, random_track, turned_degrees
from lib_hellomeme.training.head import View
from lib_hellomeme.training.identity import BACKGROUNDS, HAIRS, MEN_HAIR, SKINS, WOMEN_HAIR, Identity, random_identity
from lib_hellomeme.training.people import Region, Rendering, render

SIZE = 128
Rotation = tuple[float, float, float]
PLAIN = replace(
    random_identity(np.random.default_rng(0)),
    woman=True,
    skin="fair",
    hair_shape="short",
    fringe="open",
    glasses=None,
    beard=False,
    freckles=False,
)


def draw(
    rotation: tuple[float, float, float] = (0.0, 0.0, 0.0), person: Identity = PLAIN, **amounts: float
) -> Rendering:
    return render(person, face_state(SIZE, rotation, coefficients(**amounts)))


def area(rendering: Rendering, *regions: Region) -> int:
    return int(np.isin(rendering.regions, regions).sum())


def test_same_parameters_give_same_pixels() -> None:
    def digest() -> str:
        generator = np.random.default_rng(5)
        drawn = [render(random_identity(generator), random_face(generator, SIZE)) for _ in range(4)]
        return hashlib.sha256(b"".join(one.picture.tobytes() + one.regions.tobytes() for one in drawn)).hexdigest()

    assert digest() == digest()


def test_another_seed_is_another_person() -> None:
    first, second = (random_identity(np.random.default_rng(seed)) for seed in (1, 2))
    assert first != second
    assert (draw(person=first).picture != draw(person=second).picture).any()


@pytest.mark.parametrize("name", ARKIT_NAMES)
@pytest.mark.parametrize("size", [128, 256])
def test_every_coefficient_is_visible(name: str, size: int) -> None:
    # Lips can only close where the jaw has opened them, and the chin's way forward shows from the side.
    base = {"jawOpen": 0.6} if name == "mouthClose" else {}
    rest, moved = (
        render(PLAIN, face_state(size, (0.0, 0.4, 0.0), coefficients(**(base | extra)))).picture.astype(int)
        for extra in ({}, {name: 1.0})
    )
    changed = np.abs(rest - moved).max(axis=2)
    assert (changed > 24).sum() >= 6 * (size / 128) ** 2, f"{name} changes {int((changed > 24).sum())} px"


@given(st.integers(0, 10**6), st.floats(-0.5, 0.5))
@settings(max_examples=12, deadline=None)
def test_an_opening_jaw_enlarges_the_mouth(seed: int, yaw: float) -> None:
    person = random_identity(np.random.default_rng(seed))
    areas = [area(draw((0.0, yaw, 0.0), person, jawOpen=amount), Region.MOUTH) for amount in (0, 0.25, 0.5, 0.75, 1)]
    assert areas[0] == 0
    assert areas == sorted(areas)
    assert areas[-1] > 60


@given(st.integers(0, 10**6), st.floats(-0.4, 0.4))
@settings(max_examples=12, deadline=None)
def test_blinking_hides_the_white_of_the_eyes(seed: int, yaw: float) -> None:
    person = random_identity(np.random.default_rng(seed))
    areas = [
        area(draw((0.0, yaw, 0.0), person, eyeBlinkLeft=amount, eyeBlinkRight=amount), Region.EYE_WHITE, Region.IRIS)
        for amount in (1, 0.75, 0.5, 0.25, 0)
    ]
    assert areas[0] == 0
    assert areas == sorted(areas)
    assert areas[-1] > 40


def test_left_is_the_persons_left() -> None:
    closed = draw(eyeBlinkLeft=1.0).regions
    whites = np.argwhere(closed == Region.EYE_WHITE)
    assert len(whites)
    assert whites[:, 1].max() < SIZE / 2  # the person's right eye, at the picture's left, is the open one


def test_a_smile_lifts_the_corners_of_the_mouth() -> None:
    heights = [draw(mouthSmileLeft=a, mouthSmileRight=a).face.anchors["mouth_corners"][:, 1] for a in (0, 0.5, 1)]
    assert (np.diff(heights, axis=0) < -1).all()


@pytest.mark.parametrize("skin", SKINS)
def test_brows_are_seen_on_every_skin(skin: str) -> None:
    for hair, shape in (*((hair, "short") for hair in HAIRS), ("black", "bald")):
        shown = draw(person=replace(PLAIN, skin=skin, hair=hair, hair_shape=shape, woman=shape != "bald"))
        lightness = cv2.cvtColor(shown.picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 0]
        brows, face = (np.median(lightness[shown.regions == region]) for region in (Region.BROW, Region.SKIN))
        assert abs(brows - face) > 20, hair


def test_raised_brows_stand_higher() -> None:
    heights = [np.argwhere(draw(browInnerUp=a).regions == Region.BROW)[:, 0].mean() for a in (0.0, 0.5, 1.0)]
    assert heights[0] - 0.5 > heights[1] > heights[2] + 0.5


def test_turning_moves_the_nose() -> None:
    tips = [draw((0.0, yaw, 0.0)).face.anchors["nose_tip"][0, 0] for yaw in (-0.5, -0.2, 0.0, 0.2, 0.5)]
    assert tips == sorted(tips)
    low, high = (draw((pitch, 0.0, 0.0)).face.anchors["nose_tip"][0, 1] for pitch in (-0.4, 0.4))
    assert high > low + 4  # positive pitch lowers the nose


def test_gaze_moves_the_iris() -> None:
    def middle(**amounts: float) -> np.ndarray:
        shown = render(PLAIN, face_state(SIZE, expression=coefficients(**amounts)))
        return np.argwhere(shown.regions == Region.IRIS).mean(axis=0)

    left = middle(eyeLookOutLeft=1.0, eyeLookInRight=1.0)
    right = middle(eyeLookInLeft=1.0, eyeLookOutRight=1.0)
    assert left[1] - right[1] > 2
    assert middle(eyeLookUpLeft=1.0, eyeLookUpRight=1.0)[0] < middle()[0]


@given(*(st.floats(-limit, limit) for limit in (0.45, 0.6, 0.4)))
@settings(max_examples=20, deadline=None)
def test_heads_stand_as_the_extractors_fit_them(pitch: float, yaw: float, roll: float) -> None:
    """Landmarks put through the renderer's camera come back from the pose fit with the same rotation."""
    face = face_state(SIZE, (pitch, yaw, roll))
    view = View(face.rotation, face)
    mesh = np.zeros((478, 3))
    mesh[:468, :2] = view(mean_face())
    matrix, origin, width = fit_face(mesh)
    assert turned_degrees(rotation_angles(matrix), face.rotation) < 2.5
    translation = head_translation(origin, width / PUBLISHED_OFFSET.unit, SIZE, SIZE)
    np.testing.assert_allclose(translation, face.translation, atol=0.03)


def test_colours_are_the_identitys() -> None:
    for background, hair in (("blue", "red"), ("yellow", "black")):
        person = replace(PLAIN, background=background, hair=hair)
        shown = draw(person=person)
        corner = shown.picture[2:8, 2:8].reshape(-1, 3).mean(axis=0)
        assert np.abs(corner - BACKGROUNDS[background]).max() < 24
        mean = shown.picture[shown.regions == Region.HAIR].mean(axis=0)
        assert np.abs(mean - HAIRS[hair]).max() < 50


@pytest.mark.parametrize("shape", sorted({*WOMEN_HAIR, *MEN_HAIR}))
def test_hair_shapes(shape: str) -> None:
    person = replace(PLAIN, hair_shape=shape, woman=shape in WOMEN_HAIR)
    hair = area(draw(person=person), Region.HAIR)
    assert (hair == 0) == (shape == "bald")
    assert shape in person.caption


def test_captions_name_what_is_seen() -> None:
    person = replace(PLAIN, hair="red", hair_shape="long", glasses="black", background="blue", clothes="green")
    assert person.caption == "a woman with long red hair and glasses, fair skin, green clothes, blue background"
    man = replace(person, woman=False, hair_shape="bald", glasses=None, beard=True)
    assert man.caption.startswith("a man with bald head and a beard,")


def test_anchors_lie_where_they_are_drawn() -> None:
    shown = draw((0.1, 0.3, 0.1), jawOpen=0.8)
    inner = shown.face.anchors["mouth_inner"].astype(np.float32)
    columns, rows = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
    inside = [
        cv2.pointPolygonTest(inner, (float(x), float(y)), True) > 1.5
        for x, y in zip(columns.flat, rows.flat, strict=True)
    ]
    dark = np.isin(shown.regions.ravel()[inside], [Region.MOUTH, Region.LIPS])
    assert dark.mean() > 0.95
    assert shown.face.box is not None
    x0, y0, x1, y1 = shown.face.box
    assert 0 < x0 < SIZE * CENTRE[0] < x1 < SIZE
    assert 0 < y0 < SIZE * CENTRE[1] < y1 < SIZE


def test_tracks_move_smoothly() -> None:
    track = random_track(np.random.default_rng(3), SIZE, frames=24)
    turns = [turned_degrees(a.rotation, b.rotation) for a, b in zip(track.frames, track.frames[1:], strict=False)]
    assert len(track.frames) == 24
    assert 0 < max(turns) < 15
    assert track.frames[3].time == 3 / track.fps


def test_a_thousand_a_minute() -> None:
    generator = np.random.default_rng(8)
    states = [(random_identity(generator), random_face(generator, SIZE)) for _ in range(30)]
    start = time.process_time()
    for person, face in states:
        render(person, face)
    assert time.process_time() - start < 30 * 60 / 1000

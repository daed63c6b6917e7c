"""Gains, faces at rest and retargeting: on frames, on whole tracks, and on the picture that the networks are shown."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_hellomeme.errors import FaceError
from lib_hellomeme.face.condition import condition_image
from lib_hellomeme.face.edit import (
    GROUPS,
    REST,
    UNHEARD,
    changed_groups,
    edit_track,
    group_members,
    neutral_frame,
    retarget,
)
from lib_hellomeme.face.track import ARKIT_INDEX, ARKIT_NAMES, FaceFrame, FaceTrack
from lib_hellomeme.settings import OPTION_FIELDS, Settings, option
from tests.face.samples import angles, make_frame, translations

AXES = {"pitch_gain": 0, "yaw_gain": 1, "roll_gain": 2}
gains = st.floats(0.0, 2.0)
coefficients = st.lists(st.floats(0.0, 1.0), min_size=51, max_size=51).map(np.array)
faces = st.builds(lambda r, t, c: replace(make_frame(r, t), coefficients=c), angles, translations, coefficients)


def same(frame: FaceFrame, other: FaceFrame) -> bool:
    names = ("rotation", "translation", "coefficients")
    return all(np.allclose(getattr(frame, name), getattr(other, name), rtol=0, atol=1e-9) for name in names)


def track_of(*frames: FaceFrame, **options: Any) -> FaceTrack:
    timed = tuple(replace(frame, time=Fraction(index, 25)) for index, frame in enumerate(frames))
    return FaceTrack(Fraction(25), timed, frozenset(), "test", **options)


def test_every_coefficient_is_in_one_group_or_the_rest() -> None:
    grouped = [index for group in GROUPS for index in group_members(group)]
    rest = [index for index, name in enumerate(ARKIT_NAMES) if name.startswith(REST)]
    assert sorted(grouped + rest) == list(range(len(ARKIT_NAMES)))
    assert ARKIT_INDEX["eyeBlinkLeft"] in group_members("eyes")
    assert ARKIT_INDEX["eyeLookInLeft"] in group_members("gaze")


def test_every_gain_is_an_option_of_its_group() -> None:
    named = [*AXES, "shift_gain", *(f"{group}_gain" for group in GROUPS)]
    assert [name for name, entry in OPTION_FIELDS.items() if option(entry).group == "Head and expression"] == named
    assert {option(OPTION_FIELDS[name]).bounds for name in named} == {(0.0, 2.0)}
    assert [name for name in named if OPTION_FIELDS[name].default != 1.0] == ["shift_gain"]


@given(faces, faces)
def test_without_gains_the_driver_is_taken_as_it_is_and_the_place_kept(driver: FaceFrame, own: FaceFrame) -> None:
    target = retarget(driver, own, Settings())
    assert (target.rotation == driver.rotation).all()
    assert (target.coefficients == driver.coefficients).all()
    assert (target.translation == own.translation).all()


@given(faces, faces)
def test_weights_of_zero_keep_the_reference_whatever_the_gains(driver: FaceFrame, own: FaceFrame) -> None:
    settings = Settings(pose_weight=0.0, expression_weight=0.0, yaw_gain=2.0, shift_gain=1.0, mouth_gain=2.0)
    target = retarget(driver, own, settings)
    for name in ("rotation", "translation", "coefficients"):
        assert (getattr(target, name) == getattr(own, name)).all()


@given(faces, faces, st.sampled_from(sorted(AXES)))
def test_a_gain_of_zero_keeps_the_references_own_angle(driver: FaceFrame, own: FaceFrame, axis: str) -> None:
    target = retarget(driver, own, Settings.from_mapping({axis: 0.0}))
    expected = driver.rotation.copy()
    expected[AXES[axis]] = own.rotation[AXES[axis]]
    assert (target.rotation == expected).all()
    drawn, wanted = (condition_image(turn, own.translation, 512, 512) for turn in (target.rotation, expected))
    assert (drawn == wanted).all()


@given(faces, faces, st.sampled_from(sorted(AXES)), st.lists(gains, min_size=2, max_size=2))
def test_angles_grow_in_step_with_their_gain(driver: FaceFrame, own: FaceFrame, axis: str, pair: list[float]) -> None:
    index = AXES[axis]
    way = driver.rotation[index] - own.rotation[index]
    for gain in pair:
        turned = retarget(driver, own, Settings.from_mapping({axis: gain})).rotation[index]
        assert turned == pytest.approx(own.rotation[index] + gain * way, abs=1e-9)


@given(faces, faces, st.sampled_from(sorted(GROUPS)), gains)
def test_a_groups_gain_moves_its_coefficients_alone(driver: FaceFrame, own: FaceFrame, group: str, gain: float) -> None:
    found = retarget(driver, own, Settings.from_mapping({f"{group}_gain": gain})).coefficients
    expected = driver.coefficients.copy()
    members = group_members(group)
    way = driver.coefficients - own.coefficients
    expected[members] = np.clip(own.coefficients + gain * way, 0.0, 1.0)[members]
    assert found == pytest.approx(expected, abs=1e-9)


@given(faces, faces, st.floats(0.5, 1.0))
def test_gains_and_weights_multiply(driver: FaceFrame, own: FaceFrame, part: float) -> None:
    weighed = retarget(driver, own, Settings(pose_weight=part, expression_weight=part))
    names = [*AXES, *(f"{group}_gain" for group in GROUPS)]
    gained = retarget(driver, own, Settings.from_mapping(dict.fromkeys(names, part)))
    rest = [index for index, name in enumerate(ARKIT_NAMES) if name.startswith(REST)]
    assert weighed.rotation == pytest.approx(gained.rotation, abs=1e-9)
    assert np.delete(weighed.coefficients, rest) == pytest.approx(np.delete(gained.coefficients, rest), abs=1e-9)


def test_a_shift_puts_the_head_where_the_driver_has_it() -> None:
    driver, own = make_frame(translation=(0.1, 0.2, -4)), make_frame(translation=(0.0, -0.1, -6))
    assert retarget(driver, own, Settings(shift_gain=1.0)).translation.tolist() == [0.1, 0.2, -4.0]
    first = make_frame(translation=(0.1, 0.1, -4.5))
    moved = retarget(driver, own, Settings(shift_gain=0.5), first=first).translation
    assert moved == pytest.approx([0.0, -0.05, -5.75])


@given(angles, st.floats(-0.5, 0.5), st.floats(0.0, 2.0))
def test_roll_is_taken_the_short_way_round(rotation: np.ndarray, way: float, gain: float) -> None:
    own, driver = make_frame((*rotation[:2], 3.1)), make_frame((*rotation[:2], 3.1 + way - 2 * np.pi))
    turned = retarget(driver, own, Settings(roll_gain=gain)).rotation[2]
    assert np.exp(1j * turned) == pytest.approx(np.exp(1j * (3.1 + gain * way)), abs=1e-9)


@given(faces, faces)
def test_a_driver_at_rest_leaves_the_reference_as_it_is(driver: FaceFrame, own: FaceFrame) -> None:
    assert same(retarget(driver, own, Settings(shift_gain=1.0), neutral=driver), own)


@given(faces, faces, faces)
def test_a_motion_from_rest_is_carried_over(driver: FaceFrame, own: FaceFrame, neutral: FaceFrame) -> None:
    target = retarget(driver, own, Settings(shift_gain=1.0), neutral)
    assert target.rotation - own.rotation == pytest.approx(driver.rotation - neutral.rotation, abs=1e-9)
    place = own.translation + driver.translation - neutral.translation
    assert target.translation == pytest.approx(np.minimum(place, [9, 9, -1]), abs=1e-9)
    way = driver.coefficients - neutral.coefficients
    assert target.coefficients == pytest.approx(np.clip(own.coefficients + way, 0, 1), abs=1e-9)


def test_the_neutral_frame_is_found() -> None:
    talking = np.zeros(51)
    talking[ARKIT_INDEX["jawOpen"]] = 0.8
    unseen = replace(make_frame(), found=False)
    turned, calm = make_frame((0, 0.6, 0)), make_frame((0.05, 0, 0))
    track = track_of(unseen, turned, replace(make_frame(), coefficients=talking), calm)
    assert neutral_frame(track, "absolute") is None
    assert neutral_frame(track, "first") is track.frames[1]
    assert neutral_frame(track, "auto") is track.frames[3]
    assert neutral_frame(track, "0") is track.frames[0]
    assert neutral_frame(track_of(unseen, unseen), "first") is not None


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("4", "no frame 4 .* from 0 to 3"),
        ("-1", "'-1' is none of"),
        ("calm", "'calm' is none of"),
        ("", "'' is none of"),
    ],
)
def test_a_wrong_neutral_is_one_line(which: str, words: str) -> None:
    with pytest.raises(FaceError, match=words) as caught:
        neutral_frame(track_of(*[make_frame()] * 4), which)
    assert "\n" not in str(caught.value)


AS_FOUND = Settings(shift_gain=1.0)


@given(st.lists(faces, min_size=1, max_size=3))
def test_an_edit_without_a_wish_changes_nothing(frames: list[FaceFrame]) -> None:
    track = track_of(*frames)
    edited = edit_track(track, AS_FOUND)
    assert all(same(frame, found) for frame, found in zip(edited.frames, track.frames, strict=True))
    assert edited.warnings == track.warnings


def test_gains_of_a_track_are_about_its_face_at_rest() -> None:
    smile = np.full(51, 0.2)
    rest = replace(make_frame((0, 0.1, 0), (0, 0, -5)), coefficients=smile)
    driver = replace(make_frame((0, 0.5, 0), (0.1, 0, -5)), coefficients=smile + 0.4)
    settings = Settings(yaw_gain=0.5, mouth_gain=0.0, shift_gain=2.0)
    edited = edit_track(track_of(rest, driver), settings, neutral=rest).frames[1]
    assert edited.rotation == pytest.approx([0, 0.3, 0])
    assert edited.translation == pytest.approx([0.2, 0, -5])
    mouth = group_members("mouth")
    assert edited.coefficients[mouth] == pytest.approx(np.full(len(mouth), 0.2))
    assert np.delete(edited.coefficients, mouth) == pytest.approx(np.full(51 - len(mouth), 0.6))
    frontal = edit_track(track_of(rest, driver), settings).frames[1]
    assert frontal.rotation == pytest.approx([0, 0.25, 0])
    assert frontal.coefficients[mouth] == pytest.approx(0)


def test_what_was_seen_of_a_face_is_kept() -> None:
    driver = replace(make_frame((0, 0.5, 0), width=300, height=400), found=False)
    edited = edit_track(track_of(make_frame(), driver), Settings(yaw_gain=0.0)).frames[1]
    assert (edited.width, edited.height, edited.found, edited.time) == (300, 400, False, Fraction(1, 25))
    assert edited.box == pytest.approx(driver.box)
    assert edited.anchors["mouth_corners"] == pytest.approx(driver.anchors["mouth_corners"])


def test_embeddings_stay_and_that_is_said() -> None:
    driver = replace(make_frame(), pd_fgc=np.ones(548))
    track = track_of(driver, driver, warnings=("one",))
    assert changed_groups(Settings(jaw_gain=0.0, pitch_gain=0.0)) == ["jaw"]
    edited = edit_track(track, Settings(jaw_gain=0.0))
    assert edited.warnings == ("one", UNHEARD)
    assert edited.frames[0].pd_fgc == pytest.approx(np.ones(548))
    assert edit_track(track, Settings(yaw_gain=0.0)).warnings == ("one",)


def test_smoothing_comes_before_the_gains() -> None:
    track = track_of(*(make_frame((0, 0.1 * (index % 2), 0)) for index in range(40)))
    yaw = np.array([frame.rotation[1] for frame in edit_track(track, Settings(yaw_gain=2.0), smoothing=1.0).frames])
    assert yaw[5:-5].mean() == pytest.approx(0.1, abs=0.01)
    assert np.ptp(yaw[5:-5]) < 0.1

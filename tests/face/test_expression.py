"""Coefficients from distances: what is known of them, and what a person at rest adds to them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_hellomeme.face.expression import MEASURED, MOST_REST, from_own_rest, measurable
from lib_hellomeme.face.landmarks import ALL_POINTS
from lib_hellomeme.face.track import ARKIT_INDEX

JAW, BLINK, LOOK = (ARKIT_INDEX[name] for name in ("jawOpen", "eyeBlinkLeft", "eyeLookUpLeft"))


def test_what_can_be_measured_depends_on_the_known_landmarks():
    assert measurable(range(ALL_POINTS)) == MEASURED
    assert measurable([61, 0]) == {"mouthSmileRight"}
    assert measurable([]) == set()


@given(st.floats(0.0, MOST_REST))
def test_what_a_shape_adds_is_taken_away_and_full_stays_full(added):
    coefficients = np.zeros((9, 51))
    coefficients[:, JAW] = added
    coefficients[2, JAW] = 1.0
    settled = from_own_rest(coefficients)
    assert settled[2, JAW] == pytest.approx(1.0)
    assert np.delete(settled[:, JAW], 2) == pytest.approx(0.0, abs=1e-9)


def test_a_lasting_smile_stays_and_a_gaze_is_left_alone():
    coefficients = np.zeros((9, 51))
    coefficients[:, BLINK], coefficients[:, LOOK] = 0.9, 0.2
    settled = from_own_rest(coefficients)
    assert (settled[:, BLINK] > 0.8).all()
    assert (settled[:, LOOK] == 0.2).all()


@given(st.integers(0, 1000))
def test_the_result_is_a_coefficient(seed):
    settled = from_own_rest(np.random.default_rng(seed).uniform(0, 1, (7, 51)))
    assert settled.min() >= 0
    assert settled.max() <= 1 + 1e-12

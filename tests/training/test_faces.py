"""Random faces show what is measured often enough to be learned, and never more than there is."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lib_hellomeme.face.track import ARKIT_INDEX
from lib_hellomeme.training.faces import random_expression
from lib_hellomeme.training.measure import EXPRESSIONS


def test_what_people_look_at_first_comes_often() -> None:
    drawn = np.stack([random_expression(np.random.default_rng(seed)) for seed in range(500)])
    amounts = [drawn[:, [ARKIT_INDEX[part] for part in parts]].mean(axis=1) for parts in EXPRESSIONS.values()]
    for amount in amounts:
        assert 0.2 < (amount > 0.4).mean() < 0.5
    assert np.abs(np.corrcoef(amounts) - np.eye(len(amounts))).max() < 0.3


@given(st.integers(0, 2**32))
def test_coefficients_are_shares(seed: int) -> None:
    drawn = random_expression(np.random.default_rng(seed))
    assert drawn.shape == (51,)
    assert drawn.min() >= 0
    assert drawn.max() <= 1

"""What benchmarks measure with."""

from __future__ import annotations

import multiprocessing
import sys

import numpy as np
import pytest

from lib_hellomeme.standalone.timing import peak_memory, time_in_turn


def test_runs_alternate_and_the_first_turn_is_not_counted() -> None:
    order: list[str] = []
    a, b = time_in_turn([lambda: order.append("a"), lambda: order.append("b")], 3)
    assert "".join(order) == "ab" * 4
    assert len(a) == len(b) == 3


def held(megabytes: int) -> float:
    kept = np.ones(megabytes * 1_000_000, np.uint8)
    return peak_memory() * int(kept[-1])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")
def test_the_peak_grows_with_what_is_held() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        small, large = pool.map(held, [1, 200], chunksize=1)
    assert 180 < large - small < 250

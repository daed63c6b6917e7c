"""The counters alone: what they count takes full-size networks.

In processes of their own, as the benchmark has it: one that has freed much memory before takes new memory from that.
"""

from __future__ import annotations

import pytest
import torch

from lib_hellomeme.standalone import benchmark_memory
from lib_hellomeme.standalone.timing import STATUS, status_megabytes

pytestmark = pytest.mark.skipif(not STATUS.exists(), reason="only Linux tells")


def counted(earlier: int, within: int) -> tuple[benchmark_memory.Peaks, float, float]:
    """The peaks while arrays of `within` numbers come and go, after one of `earlier`; own memory and pages before."""
    torch.ones(earlier).add_(1)
    before = status_megabytes("RssAnon"), status_megabytes("VmRSS")
    with benchmark_memory._peaks(torch.device("cpu")) as peaks:
        for _ in range(20):
            torch.ones(within).add_(1)
    return peaks, *before


def test_a_peak_is_counted_although_it_passes() -> None:
    peaks, before, _ = benchmark_memory._in_own_process(counted, 1, 25_000_000)  # 100 MB
    assert set(peaks) == {"own memory", "with files"}
    assert 90 < peaks["own memory"] - before < 150
    assert peaks["with files"] > peaks["own memory"]


def test_an_earlier_peak_is_forgotten() -> None:
    peaks, _, before = benchmark_memory._in_own_process(counted, 50_000_000, 1_000_000)
    assert peaks["with files"] - before < 50

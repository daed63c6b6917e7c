"""The counters alone: what they count takes full-size networks."""

from __future__ import annotations

import pytest
import torch

from lib_hellomeme.standalone import benchmark_memory

pytestmark = pytest.mark.skipif(not benchmark_memory.STATUS.exists(), reason="only Linux tells")


def test_a_peak_is_counted_although_it_passes() -> None:
    before = benchmark_memory._megabytes("RssAnon")
    with benchmark_memory._peaks(torch.device("cpu")) as peaks:
        for _ in range(20):
            torch.ones(25_000_000).add_(1)  # 100 MB
    assert set(peaks) == {"own memory", "with files"}
    assert 90 < peaks["own memory"] - before < 150
    assert peaks["with files"] > peaks["own memory"]


def test_an_earlier_peak_is_forgotten() -> None:
    torch.ones(50_000_000).add_(1)
    before = benchmark_memory._megabytes("VmRSS")
    with benchmark_memory._peaks(torch.device("cpu")) as peaks:
        torch.ones(1_000_000).add_(1)
    assert peaks["with files"] - before < 50

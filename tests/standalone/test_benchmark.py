"""What is printed; what is timed takes full-size networks."""

from __future__ import annotations

from argparse import Namespace

import pytest

from lib_hellomeme.standalone import benchmark
from lib_hellomeme.standalone.timing import Taken


def test_each_generation_has_its_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [[Taken(2.0, 4.0)] * 3, [Taken(3.0, 5.0), Taken(2.0, 5.0), Taken(4.0, 5.0)]]
    monkeypatch.setattr(benchmark, "full_unet", lambda: benchmark.nn.Linear(1, 1))
    monkeypatch.setattr(benchmark, "DiffusersPort", lambda unet: unet)
    monkeypatch.setattr(benchmark, "_full_step", lambda port, call, generation: lambda: None)
    monkeypatch.setattr(benchmark, "time_in_turn", lambda steps, pairs: turns)
    benchmark.run(Namespace(generation=["v3"], size=64, pairs=3, device="cpu", half=False))
    printed = capsys.readouterr().out.splitlines()
    assert printed[1:] == [
        "plain step 2.000 s (median)",
        "v3: ratio median 1.500, from 1.000 to 2.000; of processor time 1.250",
    ]

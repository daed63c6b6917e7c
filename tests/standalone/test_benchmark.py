"""The counting and what is printed; what is counted takes full-size networks."""

from __future__ import annotations

from argparse import Namespace

import pytest

from lib_hellomeme.standalone import benchmark


def test_functions_run_in_turn_and_the_first_turn_does_not_count() -> None:
    ran: list[str] = []
    seconds = benchmark.time_in_turn([lambda: ran.append("a"), lambda: ran.append("b")], turns=2)
    assert ran == ["a", "b"] * 3
    assert [len(each) for each in seconds] == [2, 2]


def test_each_generation_has_its_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [[(2.0, 4.0)] * 3, [(3.0, 5.0), (2.0, 5.0), (4.0, 5.0)]]
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

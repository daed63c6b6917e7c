"""That the benchmark runs and says what is asked; its figures are of quiet machines."""

from __future__ import annotations

import re

import pytest

from lib_hellomeme.standalone.command_line import main


def test_it_measures_both_in_turn_and_the_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark-track", "--frames", "8", "--pairs", "1", "--lengths", "4", "8"]) == 0
    said = capsys.readouterr().out
    for line in (
        r"^decoding and FaceMesh: \d+ frames a second \(\d+ to \d+\)$",
        r"^track: \d+ frames a second",
        r"^share: median \d\.\d{3}, from \d\.\d{3} \(asked: 0\.6\)$",
        r"^peak memory: 4 frames \d+ MB, 8 frames \d+ MB$",
        r"^difference: -?\d+ MB \(asked: at most 50\)$",
    ):
        assert re.search(line, said, re.MULTILINE), said

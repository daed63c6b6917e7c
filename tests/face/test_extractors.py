"""Which extractor is taken, and what is said of those that are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lib_hellomeme.errors import CheckpointError, DependencyError, FaceError
from lib_hellomeme.face import extractors
from lib_hellomeme.face.extractors import EXTRACTORS, open_extractor
from lib_hellomeme.settings import OPTION_FIELDS, Settings, option


def stand_in(name: str, there: bool = True, error: Exception | None = None) -> Any:
    class StandIn:
        def __init__(self, models: Path | None = None) -> None:
            self.name = name
            if error:
                raise error

        @staticmethod
        def present(models: Path | None) -> bool:
            return there

    return StandIn


def chosen(monkeypatch: pytest.MonkeyPatch, *stand_ins: Any, choice: str = "auto") -> tuple[str, tuple[str, ...]]:
    monkeypatch.setattr(extractors, "EXTRACTORS", dict(zip(EXTRACTORS, stand_ins, strict=True)))
    extractor, warnings = open_extractor(choice)
    return extractor.name, warnings


def test_the_settings_offer_exactly_these():
    assert option(OPTION_FIELDS["extractor"]).choices == ("auto", *EXTRACTORS)
    assert Settings().extractor == "auto"


def test_the_published_one_comes_first_then_tasks_solutions_insightface(monkeypatch):
    assert [*EXTRACTORS] == ["onnx", "tasks", "solutions", "insightface"]
    for index, name in enumerate(EXTRACTORS):
        there = [stand_in(other, place >= index) for place, other in enumerate(EXTRACTORS)]
        assert chosen(monkeypatch, *there) == (name, ())


def test_a_broken_one_is_one_warning_and_one_that_is_not_there_none(monkeypatch):
    damaged = stand_in("onnx", error=CheckpointError("a is damaged: get b"))
    name, warnings = chosen(monkeypatch, damaged, stand_in("tasks", False), stand_in("solutions"), stand_in("i"))
    assert name == "solutions"
    assert warnings == ("the extractor onnx is left out: a is damaged: get b",)


def test_by_name_an_error_and_no_other_one(monkeypatch):
    damaged = stand_in("onnx", error=CheckpointError("a is damaged: get b"))
    with pytest.raises(CheckpointError, match="a is damaged: get b"):
        chosen(monkeypatch, damaged, *[stand_in("x")] * 3, choice="onnx")
    with pytest.raises(FaceError, match="no extractor 'eyes'"):
        chosen(monkeypatch, *[stand_in("x")] * 4, choice="eyes")


def test_where_nothing_is_there_the_easiest_to_get_is_asked_for(monkeypatch):
    missing = stand_in("solutions", False, DependencyError("mediapipe is not installed"))
    with pytest.raises(DependencyError, match="mediapipe"):
        chosen(monkeypatch, stand_in("onnx", False), stand_in("tasks", False), missing, stand_in("i", False))

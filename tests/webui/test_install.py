from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import install


def without(*modules: str) -> Any:
    """`find_spec` of an environment that lacks these modules."""
    return lambda name: None if name in modules else object()


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What was asked of pip; the constraints file's text in the place of its path."""
    asked: list[list[str]] = []

    def run(command: list[str], **options: Any) -> Any:
        asked.append([Path(part).read_text() if part.endswith("installed.txt") else part for part in command])
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    return asked


def test_nothing_is_run_where_mediapipe_is_there(commands: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", without())
    install.main()
    assert commands == []


def test_only_what_is_missing_is_added(commands: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", without("mediapipe", "absl", "flatbuffers"))
    monkeypatch.setattr(install, "installed", lambda: [("numpy", "1.26.2"), ("torch", "2.1.2+cu121")])
    monkeypatch.setattr(install, "protobuf_version", lambda: (3, 20, 0))
    install.main()
    first, last = commands
    assert first[-2:] == ["absl-py", "flatbuffers"]
    assert last[-2:] == ["--no-deps", "mediapipe==0.10.9"]
    for command in commands:
        assert "numpy==1.26.2\ntorch==2.1.2+cu121\n" in command
        assert "--upgrade" not in command


@pytest.mark.parametrize(
    ("protobuf", "release"),
    [((), "0.10.9"), ((3, 20, 0), "0.10.9"), ((4, 23, 4), "0.10.9"), ((4, 25, 3), "0.10.21"), ((5, 29, 0), "0.10.21")],
)
def test_the_release_follows_protobuf(protobuf: tuple[int, ...], release: str) -> None:
    assert install.mediapipe_for(protobuf) == f"mediapipe=={release}"


def test_a_failure_is_one_line_and_no_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", without("mediapipe"))
    failed = SimpleNamespace(returncode=1, stderr="WARNING: retrying\nERROR: No matching distribution found\n")
    monkeypatch.setattr(subprocess, "run", lambda command, **options: failed)
    install.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "HelloMeme: ERROR: No matching distribution found"
    assert lines[2].startswith("HelloMeme: mediapipe could not be installed")
    assert len(lines) == 3


def test_installed_names_what_is_here() -> None:
    assert "torch" in dict(install.installed())

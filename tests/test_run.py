"""run.py: what it installs when, and that every failure is one line."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import run


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The commands that would have been run; the environment is a folder of its own."""
    made: list[list[str]] = []
    monkeypatch.setattr(run, "ENVIRONMENT", tmp_path / "venv")
    monkeypatch.setattr(run, "PYTHON", tmp_path / "venv" / "python")
    monkeypatch.setattr(run, "INSTALLED", tmp_path / "venv" / "installed.sha256")
    monkeypatch.setattr(run.venv, "create", lambda folder, **options: folder.mkdir(exist_ok=True))
    monkeypatch.setattr(run.subprocess, "call", lambda command, **options: made.append(command) or 0)
    return made


def test_only_the_standard_library_is_needed():
    tree = ast.parse(Path(run.__file__).read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


def test_packages_are_installed_once_and_again_when_they_change(calls, monkeypatch, tmp_path):
    assert run.main(["test", "-k", "x"]) == 0
    torch, others, tests = calls
    assert "torch==2.13.0" in torch
    assert "--no-deps" in others
    assert tests[1:3] == ["-m", "pytest"]
    assert tests[1:] == [*run.TEST, "-k", "x"]
    calls.clear()
    assert run.main(["demo"]) == 0
    assert [command[1:] for command in calls] == [["-m", "lib_hellomeme", "demo"]]
    calls.clear()
    other = tmp_path / "requirements.txt"
    other.write_text("torch==2.13.0\nmore==1\n")
    monkeypatch.setattr(run, "REQUIREMENTS", other)
    assert run.main(["demo"]) == 0
    assert len(calls) == 3


@pytest.mark.parametrize("way", ["--symlinks", "--copies"])
def test_an_environment_that_was_made_by_hand_is_gone_on_with(way, monkeypatch, tmp_path):
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", way, str(folder)], check=True)
    python = folder / run.PYTHON.relative_to(run.ENVIRONMENT)
    for name, path in (("ENVIRONMENT", folder), ("PYTHON", python), ("INSTALLED", folder / "installed")):
        monkeypatch.setattr(run, name, path)
    monkeypatch.setattr(run.subprocess, "call", lambda command, **options: 0)
    assert run.prepare_environment() == ""
    assert run.version_of(python) == sys.version_info[:2]


def test_the_status_of_the_command_is_passed_on(calls, monkeypatch):
    run.prepare_environment()
    monkeypatch.setattr(run.subprocess, "call", lambda command, **options: 5)
    assert run.main(["test"]) == 5


def fails(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    assert run.main(list(arguments)) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_a_failed_install_is_one_line_and_tried_again(calls, monkeypatch, capsys):
    monkeypatch.setattr(run.subprocess, "call", lambda command, **options: 1)
    assert "run the same command again" in fails(capsys, "test")
    assert not run.INSTALLED.exists()


def test_no_venv_module_is_one_line(calls, monkeypatch, capsys):
    def create(folder: Path, **options: object) -> None:
        raise subprocess.CalledProcessError(1, "ensurepip")

    monkeypatch.setattr(run.venv, "create", create)
    assert "apt install python3-venv" in fails(capsys, "test")


def test_unknown_commands_and_interrupts_are_one_line(calls, monkeypatch, capsys):
    assert "python run.py demo or python run.py test" in fails(capsys)
    assert "python run.py demo" in fails(capsys, "fly")

    def interrupt(command, **options) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(run.subprocess, "call", interrupt)
    assert "interrupted" in fails(capsys, "test")


@pytest.mark.parametrize("version", [(3, 9, 1), (3, 13, 0)])
def test_other_pythons_are_one_line(calls, monkeypatch, capsys, version):
    monkeypatch.setattr(run.sys, "version_info", version)
    assert "3.10, 3.11 or 3.12" in fails(capsys, "test")
    assert not calls


def test_an_environment_of_another_python_is_made_anew(calls, monkeypatch):
    cleared = []
    monkeypatch.setattr(run.venv, "create", lambda folder, clear, **options: (folder.mkdir(), cleared.append(clear)))
    monkeypatch.setattr(run, "PYTHON", Path(sys.executable))
    run.prepare_environment()
    run.INSTALLED.unlink()
    run.ENVIRONMENT.rmdir()
    monkeypatch.setattr(run, "version_of", lambda python: (2, 7))
    run.prepare_environment()
    assert cleared == [False, True]


def test_every_requirement_is_pinned():
    lines = [line for line in run.REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w-]+==[\d.]+(; .+)?", line) for line in lines)
    assert run.version_of(Path(sys.executable)) == sys.version_info[:2]
    assert run.version_of(Path("no-such-python")) == ()

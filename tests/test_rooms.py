"""Imports point down the list of rooms, and the rooms below a host know nothing of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lib_hellomeme"
HIGH = ["scripts", "webui", "standalone", "training", "recipes", "sampling", "taps", "unet"]
LOW = [
    "checkpoints",
    "networks",
    "face",
    "video",
    "settings",
    "errors",
]  # loading knows the networks, not they the files
ROOMS = HIGH + LOW
HOSTS = {"modules", "modules_forge", "backend", "gradio", "ldm"}
HUBS = {"diffusers", "transformers"}


def sources() -> list[Path]:
    return sorted([*PACKAGE.rglob("*.py"), *(ROOT / "scripts").glob("*.py")])


def room_of(path: Path) -> str:
    if path.is_relative_to(PACKAGE):
        return path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "scripts"


def imported(path: Path) -> Iterator[str]:
    """Absolute names of everything that a file imports, wherever it does so."""
    package = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: -node.level]) if node.level else ""
            yield ".".join(part for part in (base, node.module or "") if part)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_point_down(path: Path) -> None:
    room = room_of(path)
    if room in ("__init__", "__main__"):
        room = "scripts"
    for name in imported(path):
        head, *rest = name.split(".")
        if head == "lib_hellomeme" and rest:
            assert ROOMS.index(rest[0]) >= ROOMS.index(room), f"{path.name} in {room} imports {name}"
        assert head not in HOSTS or room in ("webui", "scripts"), f"{path.name} in {room} imports {name}"
        assert head not in HUBS or room in ("standalone", "training"), f"{path.name} in {room} imports {name}"

"""Where a webui keeps the networks' files, what is missing, and the networks of the last generation asked for."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from lib_hellomeme.checkpoints.catalog import files_of, find
from lib_hellomeme.errors import HelloMemeError
from lib_hellomeme.recipes.reenact import EXPRESSION, Networks, load_networks


def folder() -> Path:
    """--hellomeme-models, or models/hellomeme of the webui."""
    from modules import paths, shared

    chosen = getattr(shared.cmd_opts, "hellomeme_models", None)
    return Path(chosen) if chosen else Path(paths.models_path) / "hellomeme"


def networks_of(generation: str) -> Networks:
    """The networks of a generation. Raises CheckpointError, and MissingFileError naming the first that is not there."""
    there = folder()
    files = sorted(path for path in there.rglob("*") if path.is_file())
    stamp = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return _loaded(generation, there, stamp)


@lru_cache(maxsize=1)
def _loaded(generation: str, there: Path, stamp: tuple) -> Networks:
    return load_networks(generation, there)


def check_complete(generation: str) -> None:
    """Raises HelloMemeError with all the complaints, where there are any."""
    if lines := complaints(generation):
        raise HelloMemeError(" ".join(lines))


def complaints(generation: str) -> list[str]:
    """One line for everything that has to be installed or downloaded before this generation of networks can run."""
    there = folder()
    found = find(there)
    missing = [file for file in files_of(generation, EXPRESSION) if file.key not in found]
    lines = [
        f"{file.local_name} is missing ({file.purpose}, {file.megabytes} MB): get {file.file} from "
        f"https://huggingface.co/{file.repository} and put it into {there} under this name."
        for file in missing
    ]
    if find_spec("mediapipe") is None:
        lines.append(
            "mediapipe is not installed, so no face can be found: restart the webui while there is a connection, or "
            "run this extension's install.py with the webui's Python."
        )
    return lines

"""Where a webui keeps the networks' files, what is missing, and the networks of the last generation asked for."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from lib_hellomeme.checkpoints.catalog import FILES, files_of, find
from lib_hellomeme.checkpoints.load import WEIGHT_SUFFIXES
from lib_hellomeme.errors import HelloMemeError
from lib_hellomeme.face.extractors import EXTRACTORS
from lib_hellomeme.networks.expression import ExpressionKind
from lib_hellomeme.recipes.reenact import OPTIONAL_ENCODER, Networks, load_networks
from lib_hellomeme.settings import Settings


def folder() -> Path:
    """--hellomeme-models, or models/hellomeme of the webui."""
    from modules import paths, shared

    chosen = getattr(shared.cmd_opts, "hellomeme_models", None)
    return Path(chosen) if chosen else Path(paths.models_path) / "hellomeme"


def networks_of(settings: Settings) -> Networks:
    """The networks that these settings ask for. Raises CheckpointError, and MissingFileError naming the first that is
    not there."""
    there = folder()
    # Not what a download is writing: it changes all the time.
    files = sorted(path for path in there.rglob("*") if path.suffix.lower() in WEIGHT_SUFFIXES and path.is_file())
    stamp = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return _loaded(settings.generation, settings.expression, there, stamp)


@lru_cache(maxsize=1)
def _loaded(generation: str, expression: ExpressionKind, there: Path, stamp: tuple) -> Networks:
    return load_networks(generation, there, expression=expression)


def check_complete(settings: Settings) -> None:
    """Raises HelloMemeError with all the complaints, where there are any."""
    if lines := complaints(settings):
        raise HelloMemeError(" ".join(lines))


def complaints(settings: Settings) -> list[str]:
    """One line for everything that has to be installed or downloaded before the networks of these settings can run."""
    there = folder()
    found = find(there)
    missing = [file for file in files_of(settings.generation, settings.expression) if file.key not in found]
    lines = [
        f"{file.local_name} is missing ({file.purpose}, {file.megabytes} MB): get {file.file} from "
        f"https://huggingface.co/{file.repository} and put it into {there} under this name."
        for file in missing
    ]
    if not any(extractor.present(there) for extractor in EXTRACTORS.values()):
        lines.append(
            "mediapipe is not installed, so no face can be found: restart the webui while there is a connection, or "
            "run this extension's install.py with the webui's Python."
        )
    return lines


def hints() -> list[str]:
    """What the panel says of the encoder that one can do without, and of a checkpoint that this webui cannot open."""
    lines = []
    if OPTIONAL_ENCODER not in find(folder()):
        lines.append(
            f"Without {FILES[OPTIONAL_ENCODER].local_name} (CLIP's vision tower) the networks get zeros for the "
            "appearance of eyes and mouth, and the expression comes from the coefficients alone."
        )
    return lines + _narrow_checkpoint()


def _narrow_checkpoint() -> list[str]:
    """A line where Forge, which opens only checkpoints of SD1.5's width, is offered the drawn people's."""
    if find_spec("modules_forge") is None:
        return []
    from modules import sd_models

    from lib_hellomeme.training.base import CHECKPOINT

    if all(Path(known.filename).name != CHECKPOINT for known in sd_models.checkpoints_list.values()):
        return []
    return [f"{CHECKPOINT} is narrower than SD1.5, and Forge opens only checkpoints of its width: use AUTOMATIC1111."]

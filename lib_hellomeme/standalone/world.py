"""Where the drawn world's weights lie: the narrow checkpoint, the networks that go with it, and what measures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lib_hellomeme.errors import MissingFileError
from lib_hellomeme.training import adapters, measuring, motion, style
from lib_hellomeme.training.base import CHECKPOINT

WORLD = Path(__file__).parents[2] / "demo_world"
"""The trained weights that the repository carries; the trainer's --out is a folder of the same kind."""

NETWORKS = tuple(f"{name}.safetensors" for name in adapters.FILES)
NEEDED = (CHECKPOINT, *NETWORKS, measuring.FILE)
NEEDED_FOR_UNITS = (CHECKPOINT, measuring.FILE)
MOTION = (motion.MOTION_FILE, motion.ANIMATEDIFF_FILE)
LORA = style.FILE


def need_world(folder: Path = WORLD, names: Sequence[str] = NEEDED) -> Path:
    """The folder. Raises MissingFileError naming the first of these files that is not in it."""
    for name in names:
        if not (folder / name).is_file():
            raise MissingFileError(
                f"the drawn world's {name} is not in {folder}: train it (python -m lib_hellomeme train --help), "
                "or name the folder that has it with --world"
            )
    return folder

"""What finds faces: one interface for every extractor.

Everything after an extractor (choice, smoothing, filling, editing) knows only `FaceFrame`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from lib_hellomeme.face.track import FaceFrame

# A picture, RGB uint8 (H, W, 3), and its time in seconds, to its faces, the largest first.
Finder = Callable[[np.ndarray, Fraction], list[FaceFrame]]


class Extractor(Protocol):
    """Made from the folder of the model files (None where there is none). Making one raises HelloMemeError, in one line
    that ends in what to do, where something is missing or broken."""

    name: str
    measured: frozenset[str]  # the coefficients that it can measure
    by_distances: bool  # whether they come from distances in the face, which differ between people at rest

    def __init__(self, models: Path | None = None) -> None: ...

    @staticmethod
    def present(models: Path | None) -> bool:
        """Whether anything of it is there, so that what is missing is worth a line."""
        ...

    def faces(self, picture: np.ndarray) -> list[FaceFrame]:
        """All faces of a picture, RGB uint8 (H, W, 3), the largest first, at time 0."""
        ...

    def follow(self, faces: int) -> AbstractContextManager[Finder]:
        """For a video's frames in order: gives what finds up to `faces` faces in the next one, near the last ones."""
        ...

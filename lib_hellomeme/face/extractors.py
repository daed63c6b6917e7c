"""Which extractor is taken: the one asked for, or the best that works."""

from __future__ import annotations

from pathlib import Path

from lib_hellomeme.errors import FaceError, HelloMemeError
from lib_hellomeme.face.extractor import Extractor
from lib_hellomeme.face.insightface_faces import InsightFace
from lib_hellomeme.face.mediapipe_solutions import MediaPipeSolutions
from lib_hellomeme.face.mediapipe_tasks import MediaPipeTasks
from lib_hellomeme.face.published_onnx import PublishedOnnx

# By the names that the settings have for them, the preferred first.
EXTRACTORS: dict[str, type[Extractor]] = {
    "onnx": PublishedOnnx,
    "tasks": MediaPipeTasks,
    "solutions": MediaPipeSolutions,
    "insightface": InsightFace,
}
EASIEST = "solutions"  # to get: its complaint is shown where nothing is there


def open_extractor(choice: str = "auto", models: Path | None = None) -> tuple[Extractor, tuple[str, ...]]:
    """The extractor named by a key of EXTRACTORS, or the best that works ("auto"), and warnings.

    models: the folder of the model files. With "auto", each extractor that is there but cannot be used is one warning.
    Raises HelloMemeError, of one line, where the one asked for, or every one, cannot be used.
    """
    if choice != "auto":
        if choice not in EXTRACTORS:
            raise FaceError(f"there is no extractor {choice!r}: choose auto or one of {', '.join(EXTRACTORS)}")
        return EXTRACTORS[choice](models), ()
    warnings: list[str] = []
    for name, extractor in EXTRACTORS.items():
        if extractor.present(models):
            try:
                return extractor(models), tuple(warnings)
            except HelloMemeError as error:
                warnings.append(f"the extractor {name} is left out: {error}")
    return EXTRACTORS[EASIEST](models), tuple(warnings)

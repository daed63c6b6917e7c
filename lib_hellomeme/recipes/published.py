"""What the published application draws with where its user changes nothing.

Sources: HelloMeme `app.py` (the sliders), `model_config.json` and `generator.py` (the words behind every prompt; the
negative prompt is empty), `pipelines/pipline_hm*_image.py` (the schedulers, here by their names in the webuis).
No head translation is what a picture has anyway.
"""

from __future__ import annotations

from typing import Any

STEPS = 25
CFG = 1.5
SIDE = 512  # px
OPTIONS: dict[str, Any] = {"expression": "pdfgc", "fit": "face"}  # of Settings: the encoder, the cropped reference

WORDS = (
    "(best quality), highly detailed, ultra-detailed, headshot, person, well-placed five sense organs, looking at the "
    "viewer, centered composition, sharp focus, realistic skin texture"
)
LATER_WORDS = (
    "best quality, highly detailed, masterpiece, person, portrait, headshot, looking at the viewer, sharp focus."
)


def words_of(generation: str) -> str:
    """What stands behind every prompt. Brackets are letters here, no weights."""
    return LATER_WORDS if generation in ("v5b", "v5c") else WORDS


def with_words(prompt: str, words: str) -> str:
    """A prompt with these words behind it, once."""
    if words in prompt:
        return prompt
    return f"{prompt}, {words}" if prompt else words


def sampler_of(generation: str) -> tuple[str, str]:
    """Sampler and schedule of a generation."""
    return ("Euler", "Uniform") if generation in ("v1", "v2") else ("DPM++ 2M SDE", "SGM Uniform")

"""The published defaults against what the published code and the webuis know."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lib_hellomeme.checkpoints.catalog import GENERATIONS
from lib_hellomeme.recipes import published
from lib_hellomeme.settings import Settings

generations = st.sampled_from(list(GENERATIONS))


def test_every_option_is_one() -> None:
    settings = Settings.from_mapping(published.OPTIONS)
    assert (settings.expression, settings.fit) == ("pdfgc", "face")


@given(st.text(), generations)
def test_the_words_stand_behind_the_prompt_once(prompt: str, generation: str) -> None:
    words = published.words_of(generation)
    full = published.with_words(prompt, words)
    assert full.startswith(prompt)
    assert full.endswith(words)
    assert published.with_words(full, words) == full


def test_generations_differ_as_published() -> None:
    assert {one for one in GENERATIONS if "masterpiece" in published.words_of(one)} == {"v5b", "v5c"}
    assert {one for one in GENERATIONS if published.sampler_of(one)[0] == "Euler"} == {"v1", "v2"}

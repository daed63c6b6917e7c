from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lib_hellomeme.errors import HelloMemeError
from lib_hellomeme.sampling.banks import Writing
from lib_hellomeme.settings import option
from lib_hellomeme.webui.reference_settings import (
    NAMES,
    OPTION_FIELDS,
    ReferenceSettings,
    infotext_prefix,
    read_requests,
)

PHOTO = np.full((24, 16, 3), 90, np.uint8)


def encoded(array: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def values_of(name: str) -> st.SearchStrategy[Any]:
    shown, default = option(OPTION_FIELDS[name]), OPTION_FIELDS[name].default
    if isinstance(default, bool):
        return st.booleans()
    return st.sampled_from(shown.choices) if shown.choices else st.floats(*shown.bounds)


wishes = st.fixed_dictionaries({name: values_of(name) for name in OPTION_FIELDS}).filter(
    lambda wish: wish["start"] < wish["end"]
)


def panel_of(**unit: Any) -> list[Any]:
    return [unit.get(name) for name in NAMES]


@given(st.lists(wishes, min_size=1, max_size=3))
def test_panel_and_api_say_the_same(units: list[dict[str, Any]]) -> None:
    panel = [value for unit in units for value in panel_of(**unit, picture=PHOTO)]
    api = [{**unit, "picture": encoded(PHOTO)} for unit in units]
    ours, theirs = read_requests(panel), read_requests(api)
    assert [request.settings for request in ours] == [request.settings for request in theirs]
    assert [request.number for request in ours] == [n for n, unit in enumerate(units, 1) if unit["enabled"]]
    for request in (*ours, *theirs):
        assert np.array_equal(request.picture, PHOTO)
        assert request.look is request.apply is None


@given(wishes, st.integers(1, 12))
def test_infotext_gives_back_every_option(wish: dict[str, Any], number: int) -> None:
    settings = ReferenceSettings(**{**wish, "enabled": True})
    text = {key: str(value) for key, value in settings.to_infotext(infotext_prefix(number)).items()}
    assert ReferenceSettings.from_infotext(text, infotext_prefix(number)) == settings
    assert ReferenceSettings.from_infotext(text, infotext_prefix(number + 1)) == ReferenceSettings()


def test_an_object_of_the_api_is_switched_on_unless_it_says_otherwise() -> None:
    on = {"picture": encoded(PHOTO)}
    assert [request.number for request in read_requests([on, {**on, "enabled": False}, on, None, 0.5])] == [1, 3]


def test_a_drawing_on_the_picture_says_where_to_look() -> None:
    drawn = np.zeros((24, 16, 4), np.uint8)
    drawn[4:8, :, :] = 200
    sketch = {"image": encoded(PHOTO), "mask": encoded(drawn)}  # gradio 3
    layers = {"picture": PHOTO, "look": drawn}  # Forge's canvas
    for unit in (panel_of(enabled=True, picture=sketch, look=""), panel_of(enabled=True, **layers)):
        (request,) = read_requests(unit)
        assert request.look is not None
        assert np.array_equal(request.look >= 128, drawn[:, :, 3] > 0)


@pytest.mark.parametrize("blank", [np.zeros((24, 16, 4), np.uint8), np.zeros((24, 16), np.uint8)])
def test_nothing_drawn_means_everywhere(blank: np.ndarray) -> None:
    (request,) = read_requests(panel_of(enabled=True, picture=PHOTO, look=blank))
    assert request.look is None


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ({}, "Reference unit 1: there is no picture"),
        ({"picture": ""}, "Reference unit 1: there is no picture"),
        ({"picture": "abc!"}, "Reference unit 1: Reference: it is no base64 text"),
        ({"picture": encoded(PHOTO), "look": "AAAA"}, "Reference unit 1: Where to look: the picture is not a picture"),
        ({"picture": encoded(PHOTO), "kind": "x"}, "Kind: 'x' is not one of reference_only"),
        ({"picture": encoded(PHOTO), "wait": 1}, "Unknown option 'wait'"),
        ({"picture": encoded(PHOTO), "start": 0.5, "end": 0.5}, "must be below End"),
    ],
)
def test_mistakes_are_named_in_one_line(unit: dict[str, Any], message: str) -> None:
    with pytest.raises(HelloMemeError, match=message) as caught:
        read_requests([unit])
    assert "\n" not in str(caught.value)


def test_each_way_of_writing() -> None:
    prompt = torch.zeros(1, 77, 8)
    written = {
        (writing, every): ReferenceSettings(writing=writing, every=every).how_written(lambda: prompt)
        for writing in ("compatible", "one row", "once")
        for every in ("1", "3")
    }
    assert written["compatible", "1"] == Writing()
    assert written["compatible", "3"] == Writing(every=3)
    assert written["one row", "3"].every == 3
    assert written["one row", "1"].context is prompt
    assert written["once", "1"].latents == "once"


def test_every_option_is_fully_described() -> None:
    for name, entry in OPTION_FIELDS.items():
        assert option(entry).label, name
        assert option(entry).help.endswith("."), name

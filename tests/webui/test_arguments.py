from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lib_hellomeme.errors import PictureError, SettingsError
from lib_hellomeme.settings import OPTION_FIELDS, Settings
from lib_hellomeme.webui.arguments import NAMES, PICTURES, read_request
from tests.test_settings import wishes

PICTURE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def encoded(array: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_every_option_has_its_place() -> None:
    assert NAMES[:3] == ("enabled", "reference", "driving")
    assert sorted(NAMES) == sorted([*OPTION_FIELDS, *PICTURES])
    assert list(NAMES[3:]) == [name for name in OPTION_FIELDS if name != "enabled"]


@given(wishes)
def test_a_list_and_an_object_say_the_same(wish: dict[str, Any]) -> None:
    listed = read_request([wish.get(name, name) for name in NAMES])
    named = read_request([{**wish, "reference": "reference", "driving": "driving"}])
    assert listed == named
    assert listed.settings == Settings(**wish)
    assert listed.pictures == {"reference": "reference", "driving": "driving"}


@given(wishes, st.integers(0, len(NAMES)))
def test_what_is_not_said_is_the_default(wish: dict[str, Any], length: int) -> None:
    arguments = [wish.get(name) for name in NAMES][:length]
    said = {name: wish[name] for name in NAMES[:length] if name in wish}
    if said.get("enabled") and said.get("start", 0.0) >= said.get("end", 1.0):
        return
    assert read_request(arguments).settings == Settings(**said)
    assert read_request([*arguments, *[None] * (len(NAMES) - length)]).settings == Settings(**said)


def test_an_object_switches_on_unless_it_says_otherwise() -> None:
    assert read_request([{}]).settings.enabled
    assert not read_request([{"enabled": False}]).settings.enabled
    assert not read_request([]).settings.enabled


def test_axes_replace_what_the_panel_says() -> None:
    arguments = [True, None, None]
    settings = read_request(arguments, {"pose_weight": 0.5, "fit": "pad", "enabled": "False", "end": "0.7"}).settings
    assert settings == Settings(pose_weight=0.5, fit="pad", enabled=False, end=0.7)


def test_a_wrong_name_or_value_is_told() -> None:
    with pytest.raises(SettingsError, match="Unknown option 'pose'"):
        read_request([{"pose": 1}])
    with pytest.raises(SettingsError, match="Pose weight: 9 is outside"):
        read_request([{"pose_weight": 9}])
    with pytest.raises(SettingsError, match="Pose weight: 'much' is not a number"):
        read_request([True], {"pose_weight": "much"})


@pytest.mark.parametrize(
    "given_picture",
    [
        PICTURE,
        encoded(PICTURE),
        "data:image/png;base64," + encoded(PICTURE),
        encoded(PICTURE)[:40] + "\n" + encoded(PICTURE)[40:],
        base64.b64decode(encoded(PICTURE)),
    ],
)
def test_pictures_come_as_arrays_bytes_and_base64(given_picture: Any) -> None:
    assert np.array_equal(read_request([{"reference": given_picture}]).picture("reference"), PICTURE)


@pytest.mark.parametrize(
    ("given_picture", "message"),
    [
        (None, "Driving picture: there is no picture"),
        ("", "Driving picture: there is no picture, or an empty one"),
        (b"", "Driving picture: there is no picture, or an empty one"),
        ("/etc/passwd", "Driving picture: it is no base64 text"),
        ("http://127.0.0.1/a.png", "Driving picture: it is no base64 text"),
        (base64.b64encode(b"hello").decode(), "Driving picture: .* is not a picture"),
        (encoded(PICTURE)[:60], "Driving picture: "),
    ],
)
def test_what_is_no_picture_is_told_in_one_line(given_picture: Any, message: str) -> None:
    with pytest.raises(PictureError, match=message) as caught:
        read_request([{"driving": given_picture}]).picture("driving")
    assert "\n" not in str(caught.value)

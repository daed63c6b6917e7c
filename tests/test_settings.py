from __future__ import annotations

from dataclasses import MISSING
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_hellomeme.errors import SettingsError
from lib_hellomeme.settings import OPTION_FIELDS, Settings, grouped_options, infotext_key, option


def value_of(name: str) -> st.SearchStrategy[Any]:
    shown, default = option(OPTION_FIELDS[name]), OPTION_FIELDS[name].default
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, float):
        return st.floats(*shown.bounds)
    return st.sampled_from(shown.choices) if shown.choices else st.sampled_from(["", "0.1, 0.2, 0.5, 0.6"])


wishes = st.fixed_dictionaries({name: value_of(name) for name in OPTION_FIELDS}).filter(
    lambda wish: wish["start"] < wish["end"]
)


@given(wishes)
def test_infotext_gives_back_every_option(wish: dict[str, Any]) -> None:
    settings = Settings(**{**wish, "enabled": True})
    as_text = {key: str(value) for key, value in settings.to_infotext().items()}
    assert Settings.from_infotext(as_text) == settings


def test_nothing_is_said_of_a_run_that_was_off() -> None:
    assert Settings(pose_weight=0.5).to_infotext() == {}


def test_infotext_of_other_extensions_is_passed_by() -> None:
    assert Settings.from_infotext({"Steps": "20", "ControlNet 0": "x"}) == Settings()


def test_every_option_is_fully_described() -> None:
    keys = [infotext_key(name) for name in OPTION_FIELDS]
    assert len(set(keys)) == len(keys)
    for entry in OPTION_FIELDS.values():
        assert option(entry).label
        assert option(entry).help.endswith(".")
        assert entry.default is not MISSING


def test_every_option_is_in_one_group_the_main_ones_first() -> None:
    groups = grouped_options()
    assert next(iter(groups)) == ""
    assert sorted(name for names in groups.values() for name in names) == sorted(OPTION_FIELDS)
    for group, names in groups.items():
        assert names == [name for name, entry in OPTION_FIELDS.items() if option(entry).group == group]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"pose_weight": 3}, "Pose weight: 3 is outside 0 to 2"),
        ({"pose_weight": "much"}, "Pose weight: 'much' is not a number"),
        ({"pose_weight": float("nan")}, "Pose weight: nan is outside"),
        ({"enabled": 1}, "Enable: 1 is neither true nor false"),
        ({"fit": "squeeze"}, "Fit: 'squeeze' is not one of face, crop, pad, stretch"),
        ({"face_box": "1, 2"}, "give four numbers"),
        ({"face_box": "0.5, 0.2, 0.4, 0.6"}, "left before right"),
        ({"enabled": True, "start": 0.5, "end": 0.5}, "must be below End"),
        ({"pose_wait": 1}, "Unknown option 'pose_wait'; there are: brows_gain, enabled"),
    ],
)
def test_wrong_values_are_named_in_one_line(wish: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        Settings.from_mapping(wish)
    assert "\n" not in str(caught.value)


def test_a_box_is_read() -> None:
    assert Settings(face_box="0.3, 0.2; 0.7, 0.6").box() == (0.3, 0.2, 0.7, 0.6)
    assert Settings().box() is None

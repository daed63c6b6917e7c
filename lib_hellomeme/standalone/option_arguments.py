"""Options of `Settings` as arguments of a command."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from lib_hellomeme.settings import OPTION_FIELDS, option


def add_options(add: Callable[..., Any], names: Sequence[str]) -> None:
    """One argument for each of these options, through an `add_argument`."""
    for name in names:
        entry = OPTION_FIELDS[name]
        shown = option(entry)
        help = shown.help.replace("%", "%%")
        described: dict[str, Any] = {"default": entry.default, "help": f"{help} (%(default)s)"}
        if isinstance(entry.default, bool):
            described["action"] = argparse.BooleanOptionalAction
        elif isinstance(entry.default, float):
            described |= {"type": float, "metavar": "NUMBER"}
        else:
            described["metavar"] = "|".join(shown.choices) or "TEXT"
        add(f"--{name.replace('_', '-')}", **described)

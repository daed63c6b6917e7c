"""What a user is told of a generation, below the picture and in the API's answer."""

from __future__ import annotations

from typing import Any

from lib_hellomeme.errors import HelloMemeError


def note_key(who: str) -> str:
    """Where a picture's parameters keep the notes of one of our scripts."""
    return f"{who} note"


def note(p: Any, who: str, text: str) -> None:
    """Show a line."""
    p.comment(f"{who}: {text}")
    earlier = p.extra_generation_params.get(note_key(who))
    p.extra_generation_params[note_key(who)] = f"{earlier} {text}" if earlier else text


def note_error(p: Any, who: str, error: Exception, what: str) -> None:
    """Say `what` happened and why.

    Raises `error` again where it is no user's mistake but a defect: the webui then logs it, and goes on too.
    """
    if isinstance(error, HelloMemeError):
        note(p, who, f"{what} {error}")
        return
    note(p, who, f"{what} Something failed that should not ({type(error).__name__}); the console says what.")
    raise error

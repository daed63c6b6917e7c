"""Where a webui's running sampling is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class Step:
    """Where the running sampling is: what CFGDenoiser said of its present step, and how many rows of it were called."""

    said: Any = None  # CFGDenoiserParams
    called: int = 0

    @property
    def progress(self) -> float:
        """The fraction of the calls that lie behind, in [0, 1]."""
        denoiser = self.said.denoiser
        return min(denoiser.step / max(denoiser.total_steps, 1), 1.0)


@contextmanager
def followed_steps(p: Any) -> Iterator[Step]:
    """Yield a Step that follows p's denoiser while the context lasts."""
    from modules import script_callbacks

    step = Step()

    def hear(said: Any) -> None:
        if said.denoiser.p is p:
            step.said, step.called = said, 0

    script_callbacks.on_cfg_denoiser(hear)
    try:
        yield step
    finally:
        script_callbacks.remove_callbacks_for_function(hear)

"""Which rows of a call are which, against emulations of how the two webuis call their UNets."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_hellomeme.errors import HostError
from lib_hellomeme.webui import a1111, forge
from lib_hellomeme.webui.step import Step

Row = tuple[bool, int]  # whether it is uncond, and which picture's


@dataclass
class Layout:
    """One step of CFGDenoiser."""

    parts: tuple[int, ...]  # of each picture's prompt, joined by AND
    equal: bool  # prompt and negative prompt are equally long
    joint: bool  # the option "batch cond/uncond"
    skip: bool  # the unconds are left out

    @property
    def pictures(self) -> int:
        return len(self.parts)

    def calls(self) -> list[list[Row]]:
        """For every call of the UNet what each of its rows is, as CFGDenoiser.forward cuts them."""
        cond = [(False, picture) for picture, parts in enumerate(self.parts) for _ in range(parts)]
        uncond = [] if self.skip else [(True, picture) for picture in range(self.pictures)]
        if self.equal or self.skip:
            rows = cond + uncond
            return [rows] if self.joint else cut(rows, self.pictures)
        return cut(cond, self.pictures * (2 if self.joint else 1)) + ([uncond] if uncond else [])


def cut(rows: list[Row], size: int) -> list[list[Row]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


layouts = st.builds(
    Layout,
    parts=st.lists(st.integers(1, 3), min_size=1, max_size=4).map(tuple),
    equal=st.booleans(),
    joint=st.booleans(),
    skip=st.booleans(),
)


def said(step: int = 0, total: int = 4, parts: tuple[int, ...] = (1,)) -> Any:
    prompts = SimpleNamespace(batch=[[None] * count for count in parts])
    sampler = SimpleNamespace(sampler_extra_args={"cond": prompts})
    denoiser = SimpleNamespace(step=step, total_steps=total, sampler=sampler)
    conds, unconds = (torch.zeros(count, 77, 8) for count in (sum(parts), len(parts)))
    return SimpleNamespace(denoiser=denoiser, text_cond=conds, text_uncond=unconds)


def call_of(host: Any, step: Step, rows: int, options: dict[str, Any] | None = None) -> Any:
    return host.describe(step, torch.zeros(rows, 4, 8, 8), torch.zeros(rows), torch.zeros(rows, 77, 8), options or {})


@given(st.lists(layouts, min_size=1, max_size=4))
def test_a1111_knows_every_row_of_every_cut(steps: list[Layout]) -> None:
    step = Step()
    for number, layout in enumerate(steps):
        step.said, step.called = said(number, len(steps), layout.parts), 0
        for rows in layout.calls():
            call = call_of(a1111, step, len(rows))
            assert list(zip(call.rows.uncond, call.rows.picture, strict=True)) == rows
            assert call.progress == number / len(steps)


def test_a1111_leaves_calls_outside_a_step_alone() -> None:
    assert call_of(a1111, Step(), 2) is None


def test_a1111_refuses_calls_it_cannot_tell_apart() -> None:
    step = Step(said())
    call_of(a1111, step, 2)
    with pytest.raises(HostError, match="Another extension calls the UNet"):
        call_of(a1111, step, 2)


@given(st.lists(st.integers(0, 1), min_size=1, max_size=4), st.integers(1, 4))
def test_forge_knows_every_row_of_every_chunk(chunks: list[int], rows: int) -> None:
    call = call_of(forge, Step(said(1, 4)), rows * len(chunks), {"cond_or_uncond": chunks})
    assert call.rows.uncond == tuple(chunk == 1 for chunk in chunks for _ in range(rows))
    assert call.rows.picture == tuple(range(rows)) * len(chunks)
    assert call.progress == 0.25


def test_forge_leaves_calls_outside_a_step_alone() -> None:
    assert call_of(forge, Step(), 2, {"cond_or_uncond": [1, 0]}) is None
    assert call_of(forge, Step(said()), 2) is None


def test_progress_of_a_sampler_that_asks_more_often_than_it_said() -> None:
    assert Step(said(step=9, total=4)).progress == 1.0
    assert Step(said(step=0, total=0)).progress == 0.0


def test_a1111_takes_controlnet_s_mark_from_the_prompts() -> None:
    """sd-webui-controlnet puts a token of ±1024 before each, which its own forward takes away."""
    step, prompts = Step(said()), torch.randn(2, 77, 8)
    mark = torch.tensor([1024.0, -1024.0]).reshape(2, 1, 1).expand(2, 1, 8)
    call = a1111.describe(step, torch.zeros(2, 4, 8, 8), torch.zeros(2), torch.cat([mark, prompts], dim=1), {})
    assert call is not None
    assert torch.equal(call.context, prompts)
    assert call.rows.uncond == (False, True)

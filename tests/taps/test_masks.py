from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_hellomeme.errors import HostError
from lib_hellomeme.taps.masks import keep_touched, selection, shares, token_grid, touched, zero_untouched
from tests.goldens_format import seeded


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 3))
def test_every_level_of_a_unet_finds_its_grid(height: int, width: int, level: int) -> None:
    rows, columns = (-(-side // 2**level) for side in (height, width))
    found = token_grid(rows * columns, height, width)
    assert found[0] * found[1] == rows * columns


def test_other_numbers_of_tokens_are_refused() -> None:
    with pytest.raises(HostError, match="token merging"):
        token_grid(100, 8, 8)


@settings(deadline=None)
@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 12), st.integers(1, 12), st.data())
def test_a_mask_is_never_lost(height: int, width: int, rows: int, columns: int, data: st.DataObject) -> None:
    mask = torch.zeros(1, 1, height, width)
    mask[0, 0, data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))] = 1
    assert touched(mask, rows, columns).any()
    assert shares(mask, rows, columns).sum() > 0


def test_removed_tokens_are_gone_and_zeroed_tokens_stay() -> None:
    mask = torch.zeros(1, 1, 8, 12)
    mask[..., :4, 6:] = 1  # the upper right quarter
    tokens = seeded("masks/tokens", (2, 4 * 6, 5))
    grid = tokens.unflatten(1, (4, 6))
    assert torch.equal(keep_touched(tokens, mask, 8, 12), grid[:, :2, 3:].flatten(1, 2))
    zeroed = zero_untouched(tokens, mask, 8, 12).unflatten(1, (4, 6))
    assert torch.equal(zeroed[:, :3, 2:], grid[:, :3, 2:])  # thickened by one place
    assert not zeroed[:, 3:].any()
    assert not zeroed[:, :, :2].any()


@given(st.lists(st.booleans(), min_size=1))
def test_a_selection_selects(flags: list[bool]) -> None:
    rows = torch.arange(len(flags))
    assert rows[selection(flags)].tolist() == [row for row, flag in enumerate(flags) if flag]


def test_rows_that_stand_together_need_no_copy() -> None:
    assert selection([False, True, True]) == slice(1, 3)

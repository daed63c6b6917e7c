from __future__ import annotations

import torch
from torch import Tensor

from lib_hellomeme.taps.adain import Style, adain, record_statistics, restyled, statistics
from lib_hellomeme.taps.bank import Bank
from lib_hellomeme.unet.port import Call, Rows
from tests.goldens_format import seeded


def a_call() -> Call:
    return Call(torch.zeros(2, 4, 4, 6), torch.zeros(2), torch.zeros(2, 1, 8), Rows((True, False)))


def features(name: str, rows: int = 2) -> Tensor:
    return 3 * seeded(f"adain/{name}", (rows, 5, 4, 6)) + 1


def target(name: str = "reference", rows: int = 2) -> Tensor:
    return statistics(2 * features(name, rows) - 7)


def test_features_take_the_reference_s_statistics() -> None:
    got = restyled(features("x"), target())
    torch.testing.assert_close(statistics(got), target(), atol=1e-4, rtol=1e-4)


def test_flat_features_are_no_division_by_zero() -> None:
    assert restyled(torch.full((2, 5, 4, 6), 3.0), target()).isfinite().all()


def test_each_row_goes_by_it_as_far_as_its_share() -> None:
    x, wanted = features("x"), restyled(features("x"), target())
    tap = adain("block.12", lambda _: [Style(target(), (0.0, 0.25))])
    got = tap.function(x, a_call())
    assert torch.equal(got[0], x[0])
    torch.testing.assert_close(got[1], (0.75 * x + 0.25 * wanted)[1])


def test_a_mask_says_where_and_several_styles_add_up() -> None:
    x, where = features("x"), torch.zeros(1, 1, 8, 12)
    where[..., :6] = 1
    styles = [Style(target(), (1.0, 1.0), where), Style(target("other", 1), (0.5, 0.5))]
    got = adain("block.12", lambda _: styles).function(x, a_call())
    first, second = (restyled(x, style.statistics) - x for style in styles)
    torch.testing.assert_close(got[..., :3], (x + first + 0.5 * second)[..., :3])
    torch.testing.assert_close(got[..., 3:], (x + 0.5 * second)[..., 3:])


def test_statistics_of_a_part_are_that_part_s() -> None:
    x, mask, bank = features("x"), torch.zeros(1, 1, 4, 6), Bank()
    mask[..., 1:3, 2:] = 1
    tap = record_statistics("block.3", bank, mask)
    assert tap.function(x, a_call()) is x
    torch.testing.assert_close(bank["block.3"], statistics(x[:, :, 1:3, 2:]))

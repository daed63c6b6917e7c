"""Reading banks, against the formulas computed naively."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lib_hellomeme.errors import HostError
from lib_hellomeme.taps.attention import Look, Merge, read, record_tokens
from lib_hellomeme.unet.hooks import own_attention
from lib_hellomeme.unet.port import Attended, AttentionTap, Call, Parts, Rows, Selection
from tests.goldens_format import seed_weights, seeded

WIDTH, HEADS = 16, 2
TOKENS = 4 * 6
SHARES = [(0.5, 1.0), (1.0, 1.0), (0.0, 1.0), (0.25, 0.75), (1.0, 0.0), (0.0, 0.0)]


class Layer(nn.Module):
    """Multi-head attention, written out."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (
            tokens.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for tokens in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        probabilities = (q @ k.transpose(-1, -2) / math.sqrt(WIDTH / HEADS)).softmax(-1)
        return self.to_out((probabilities @ v).transpose(1, 2).flatten(2))


@pytest.fixture
def layer() -> Layer:
    layer = Layer()
    seed_weights(layer, "taps.")
    return layer


def a_call() -> Call:
    return Call(torch.zeros(2, 4, 4, 6), torch.zeros(2), torch.zeros(2, 1, 8), Rows((True, False)))


def applied(tap: AttentionTap, layer: Layer, x: Tensor, call: Call) -> Tensor:
    """What a port does with a tap at a self-attention layer."""
    attend = own_attention(layer, x)
    output = attend(tap.context(x, (x,), call))
    return output if tap.output is None else tap.output(Attended(x, (x,), output, attend), call)


@pytest.fixture
def x() -> Tensor:
    return seeded("taps/x", (2, TOKENS, WIDTH))


def bank(name: str, rows: int = 2, tokens: int = 10) -> Tensor:
    return seeded(f"taps/{name}", (rows, tokens, WIDTH))


def of_rows(share: tuple[float, ...]) -> Tensor:
    return torch.tensor(share).reshape(-1, 1, 1)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("merge", ["concat", "replace", "sum"])
def test_each_merge_is_its_formula(layer: Layer, x: Tensor, merge: Merge, share: tuple[float, ...], rows: int) -> None:
    tokens, plain = bank("a", rows), layer(x, x)
    every = tokens.expand(2, -1, -1)
    seen = layer(x, torch.cat([x, every], 1) if merge == "concat" else every)
    wanted = plain + of_rows(share) * (seen if merge == "sum" else seen - plain)
    got = applied(read("", lambda _: [Look(tokens, share)], merge), layer, x, a_call())
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("merge", ["concat", "sum"])
def test_several_looks_add_their_differences(layer: Layer, x: Tensor, merge: Merge) -> None:
    looks = [Look(bank("a"), (0.5, 1.0)), Look(bank("b", 1, 3), (0.0, 0.25)), Look(bank("c"), (0.0, 0.0))]
    plain = layer(x, x)
    wanted = plain.clone()
    for look in looks:
        tokens = look.tokens.expand(2, -1, -1)
        seen = layer(x, torch.cat([x, tokens], 1)) - plain if merge == "concat" else layer(x, tokens)
        wanted += of_rows(look.share) * seen
    got = applied(read("", lambda _: looks, merge), layer, x, a_call())
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("merge", ["concat", "replace", "sum"])
def test_rows_that_read_nothing_are_plain_to_the_bit(layer: Layer, x: Tensor, merge: Merge) -> None:
    tap = read("", lambda _: [Look(bank("a"), (0.0, 1.0))], merge)
    assert torch.equal(applied(tap, layer, x, a_call())[0], layer(x, x)[0])
    nothing = read("", lambda _: [Look(bank("a"), (0.0, 0.0))], merge)
    assert torch.equal(applied(nothing, layer, x, a_call()), layer(x, x))
    assert torch.equal(applied(read("", lambda _: (), merge), layer, x, a_call()), layer(x, x))


def test_a_mask_says_where_in_the_picture(layer: Layer, x: Tensor) -> None:
    """Left half of a picture of 4 x 6 latents; the mask is given at another size."""
    where = torch.zeros(1, 1, 32, 48)
    where[..., :24] = 1
    tokens, plain = bank("a"), layer(x, x)
    seen = layer(x, torch.cat([x, tokens], 1))
    left = torch.tensor([1.0, 1, 1, 0, 0, 0]).repeat(4).reshape(1, -1, 1)
    got = applied(read("", lambda _: [Look(tokens, (0.5, 1.0), where)]), layer, x, a_call())
    torch.testing.assert_close(got, plain + left * of_rows((0.5, 1.0)) * (seen - plain), atol=1e-6, rtol=1e-5)
    assert torch.equal(got.unflatten(1, (4, 6))[:, :, 3:], plain.unflatten(1, (4, 6))[:, :, 3:])


def test_merged_tokens_are_read_but_cannot_be_masked(layer: Layer) -> None:
    """Token merging gives a layer fewer tokens than the picture has places."""
    x, tokens = seeded("taps/merged", (2, 17, WIDTH)), bank("a")
    got = applied(read("", lambda _: [Look(tokens, (1.0, 1.0))]), layer, x, a_call())
    torch.testing.assert_close(got, layer(x, torch.cat([x, tokens], 1)))
    with pytest.raises(HostError, match="token merging"):
        applied(read("", lambda _: [Look(tokens, (1.0, 1.0), torch.ones(1, 1, 4, 6))]), layer, x, a_call())


def test_evaluations_are_not_wasted(layer: Layer, x: Tensor) -> None:
    """Fidelity costs the uncond rows' plain evaluation and nothing else."""
    seen: list[tuple[int, int]] = []
    attend = own_attention(layer, x)

    def counted(parts: Parts, rows: Selection = slice(None), /) -> Tensor:
        seen.append((len(x[rows]), sum(part.shape[1] for part in parts)))
        return attend(parts, rows)

    for share, wanted in (((1.0, 1.0), []), ((0.5, 1.0), [(1, TOKENS)]), ((0.5, 0.5), [(2, TOKENS)])):
        tap, call = read("", lambda _, share=share: [Look(bank("a"), share)]), a_call()
        assert tap.output is not None
        tap.output(Attended(x, (x,), attend(tap.context(x, (x,), call)), counted), call)
        assert seen == wanted
        seen.clear()


def test_a_tap_writes_into_nothing_it_is_given(layer: Layer, x: Tensor) -> None:
    tokens, call = bank("a"), a_call()
    for merge in ("concat", "replace", "sum"):
        tap = read("", lambda _: [Look(tokens, (0.5, 0.75))], merge)
        attend = own_attention(layer, x)
        output = attend(tap.context(x, (x,), call))
        kept = [x.clone(), tokens.clone(), output.clone()]
        assert tap.output is not None
        tap.output(Attended(x, (x,), output, attend), call)
        assert all(torch.equal(a, b) for a, b in zip(kept, (x, tokens, output), strict=True))


def test_recording_keeps_what_is_attended_to(x: Tensor) -> None:
    kept: dict[str, Tensor] = {}
    tap = record_tokens("here", kept, lambda tokens, call: tokens[:, :3])
    assert tap.context(x, (x,), a_call())[0] is x
    assert torch.equal(kept["here"], x[:, :3])

"""What every port promises of taps at attention layers and block outputs, on the small UNets."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from lib_hellomeme.taps.attention import Look, read, record_tokens
from lib_hellomeme.taps.bank import Bank, record
from lib_hellomeme.unet.forge import ForgePort
from lib_hellomeme.unet.hooks import FusedAttention, own_attention
from lib_hellomeme.unet.port import (
    BLOCKS,
    CROSS_ATTENTION,
    MID,
    SELF_ATTENTION,
    Attended,
    AttentionTap,
    Call,
    Parts,
    Port,
    Tap,
)
from tests.goldens_format import seeded
from tests.tiny import PORTS, FusedPort, run_unet
from tests.unet.test_ports import a_call, doubled

LAYERS = (*SELF_ATTENTION, *CROSS_ATTENTION)


@pytest.fixture(scope="module", params=PORTS)
def port(request: pytest.FixtureRequest) -> Port:
    return PORTS[request.param]()


@pytest.fixture(scope="module")
def diffusers() -> Port:
    return PORTS["diffusers"]()


@pytest.fixture(autouse=True)
def _without_gradients() -> object:
    with torch.inference_mode():
        yield


def halved(x: Tensor, parts: Parts, call: Call) -> Parts:
    return (parts[0][:, : parts[0].shape[1] // 2],)


def rectified(hidden: Tensor, call: Call) -> Tensor:
    return hidden.relu()  # a factor alone would not outlive the normalisation behind the last block


def doubled_output(attended: Attended, call: Call) -> Tensor:
    return 2 * attended.output


def attention_of(port: Port, site: str) -> Any:
    return port.attention[site]  # type: ignore[attr-defined]


@pytest.mark.parametrize("site", LAYERS)
def test_an_attention_tap_acts_at_one_place_and_leaves_no_trace(port: Port, diffusers: Port, site: str) -> None:
    call = a_call()
    plain = run_unet(port, call)
    taps = [AttentionTap(site, halved, doubled_output)]
    with port.attach(taps, lambda *_: call):
        got = run_unet(port, call)
    assert torch.equal(run_unet(port, call), plain)
    assert not torch.allclose(got, plain, atol=1e-4)
    torch.testing.assert_close(got, diffusers.run(call, taps), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("site", BLOCKS)
def test_a_block_tap_acts_at_one_place_and_leaves_no_trace(port: Port, diffusers: Port, site: str) -> None:
    call = a_call()
    plain = run_unet(port, call)
    with port.attach([Tap(site, rectified)], lambda *_: call):
        got = run_unet(port, call)
    assert torch.equal(run_unet(port, call), plain)
    assert not torch.allclose(got, plain, atol=1e-4)
    torch.testing.assert_close(got, diffusers.run(call, [Tap(site, rectified)]), atol=1e-5, rtol=1e-4)


def test_taps_that_change_nothing_change_no_bit(port: Port) -> None:
    call, bank = a_call(), Bank()
    plain = run_unet(port, call)
    with port.attach([record_tokens(site, bank) for site in LAYERS], lambda *_: call):
        assert torch.equal(run_unet(port, call), plain)
    assert list(bank) == [site for pair in zip(SELF_ATTENTION, CROSS_ATTENTION, strict=True) for site in pair]
    assert bank["self_attention.6"].shape == (2, 2 * 3, 128)
    assert torch.equal(bank["cross_attention.6"], call.context)


def test_taps_at_one_layer_nest(port: Port) -> None:
    call, seen = a_call(), []

    def appending(name: str, tokens: int) -> AttentionTap:
        def context(x: Tensor, parts: Parts, call: Call) -> Parts:
            seen.append((name, [part.shape[1] for part in parts[1:]]))
            return (*parts, x[:, :tokens])

        def output(attended: Attended, call: Call) -> Tensor:
            seen.append((name, [part.shape[1] for part in attended.parts[1:]]))
            return attended.output

        return AttentionTap("self_attention.3", context, output)

    port.run(call, [appending("a", 1), appending("b", 2)])
    assert seen == [("a", []), ("b", [1]), ("b", [1]), ("a", [])]


def test_block_taps_come_before_those_at_the_same_place(port: Port) -> None:
    call, order = a_call(), []

    def noting(site: str, skip: bool = False) -> Tap:
        def note(hidden: Tensor, call: Call) -> Tensor:
            order.append(site)
            return hidden

        return Tap(site, note, skip)

    port.run(call, [noting(MID), noting("down.3", skip=True), noting("block.12"), noting("block.11")])
    assert order == ["block.11", "down.3", "block.12", MID]


def test_blocks_carry_their_change_into_the_skip(port: Port) -> None:
    """block.3 is the place of down.0: with the skip, not the value alone."""
    call = a_call()
    assert torch.equal(port.run(call, [Tap("block.3", doubled)]), port.run(call, [Tap("down.0", doubled, skip=True)]))


def test_an_evaluation_of_chosen_rows_is_seen_by_no_tap(port: Port) -> None:
    call, calls, given = a_call(), [], []

    def output(attended: Attended, call: Call) -> Tensor:
        again = attended.attend(attended.parts, slice(1, None))
        given.append((again, attended.output[1:]))
        return attended.output

    def count(x: Tensor, parts: Parts, call: Call) -> Parts:
        calls.append(1)
        return parts

    with port.attach([AttentionTap("self_attention.2", count, output)], lambda *_: call):
        run_unet(port, call)
    assert len(calls) == 1
    torch.testing.assert_close(*given[0])


def test_a_bare_pass_inside_a_call_meets_silent_attention_taps(port: Port) -> None:
    call, inner = a_call(), []
    plain = run_unet(port, call)
    taps = [AttentionTap("self_attention.0", halved, doubled_output), Tap("block.4", doubled)]
    with port.attach(taps, lambda *_: call, lambda call: inner.append(port.run(call))):
        assert not torch.equal(run_unet(port, call), plain)
    assert torch.equal(inner[0], port.run(call))
    torch.testing.assert_close(inner[0], plain)


def test_calls_that_are_left_alone_are_plain(port: Port) -> None:
    call = a_call()
    plain = run_unet(port, call)
    with port.attach([AttentionTap(site, halved, doubled_output) for site in LAYERS], lambda *_: None):
        assert torch.equal(run_unet(port, call), plain)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_in_a_tap_leaves_no_trace(port: Port, error: type[BaseException]) -> None:
    call = a_call()
    plain = run_unet(port, call)

    def fail(attended: Attended, call: Call) -> Tensor:
        raise error

    layer = attention_of(port, "self_attention.5")
    with pytest.raises(error), port.attach([AttentionTap("self_attention.5", halved, fail)], lambda *_: call):
        run_unet(port, call)
    assert torch.equal(run_unet(port, call), plain)
    assert not layer._forward_hooks
    assert not layer._forward_pre_hooks
    assert "forward" not in vars(layer)


def test_the_optimised_attention_of_the_webui_does_the_work(port: Port) -> None:
    """A1111 replaces the forward of the class, before or after we attach. Where fused attention computes what is read,
    the layer is given one token."""
    call, bank = a_call(), Bank()
    site = "self_attention.1"
    port.run(call, [record_tokens(site, bank)])
    layer = attention_of(port, site)
    own, contexts = type(layer).forward, []

    def optimised(self: nn.Module, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        if self is layer:
            contexts.append([*args, *kwargs.values()][0].shape[:2])  # type: ignore[union-attr]
        return own(self, x, *args, **kwargs)

    taps = [read(site, lambda _: [Look(bank[site], (0.5, 1.0))])]
    with port.attach(taps, lambda *_: call), mock.patch.object(type(layer), "forward", optimised):
        run_unet(port, call)
    tokens = 16 * 24
    assert contexts == ([(2, 1)] if isinstance(port, FusedPort) else [(2, 2 * tokens), (1, tokens)])


def test_fused_attention_does_what_the_layer_does() -> None:
    layer = attention_of(PORTS["ldm"](), "self_attention.4")
    x, context = (seeded(f"fused/{name}", (2, tokens, 128)) for name, tokens in (("x", 5), ("context", 9)))
    parts = (context, context[:1])
    fused, own = FusedAttention(layer, x), own_attention(layer, x)
    torch.testing.assert_close(fused(parts), own(parts))
    torch.testing.assert_close(fused((context,), [1]), own((context,), [1]))


def test_fused_attention_projects_shared_tokens_once() -> None:
    layer, seen = attention_of(PORTS["ldm"](), "self_attention.4"), []
    x, tokens = seeded("fused/x", (2, 5, 128)), seeded("fused/context", (1, 9, 128))
    handles = [
        projection.register_forward_hook(lambda module, given, output: seen.append(given[0].shape[:2]))
        for projection in (layer.to_q, layer.to_k, layer.to_v)
    ]
    attend = FusedAttention(layer, x)
    attend((x, tokens))
    attend((x,), slice(0, 1))
    for handle in handles:
        handle.remove()
    assert sorted(seen) == [(1, 9), (1, 9), (2, 5), (2, 5), (2, 5)]


def test_an_instance_that_cuts_x_into_tiles_but_not_the_context_is_passed_by(port: Port) -> None:
    """As Hypertile does, which crashes ControlNet's reference."""
    if isinstance(port, ForgePort):
        pytest.skip("Forge has no Hypertile that replaces an instance's forward")
    call, bank, site = a_call(), Bank(), "self_attention.0"
    port.run(call, [record_tokens(site, bank)])
    layer = attention_of(port, site)
    own = layer.forward

    def tiled(x: Tensor, *args: object, **kwargs: object) -> Tensor:
        return own(x.unflatten(1, (2, -1)).flatten(0, 1), *args, **kwargs).unflatten(0, (-1, 2)).flatten(1, 2)

    taps = [read(site, lambda _: [Look(bank[site], (0.5, 1.0))])]
    plain = run_unet(port, call)
    with port.attach(taps, lambda *_: call):
        wanted = run_unet(port, call)
    layer.forward = tiled  # type: ignore[method-assign]
    try:
        assert not torch.equal(run_unet(port, call), plain)
        with port.attach(taps, lambda *_: call):
            assert torch.equal(run_unet(port, call), wanted)
        assert layer.forward is tiled
    finally:
        del layer.forward


def test_clones_of_a_patcher_keep_the_taps(port: Port) -> None:
    if not isinstance(port, ForgePort):
        pytest.skip("a promise of Forge's port")
    call = a_call()
    taps = [AttentionTap("self_attention.7", halved, doubled_output), Tap("block.20", doubled)]
    wanted = port.run(call, taps)
    with port.attach(taps, lambda *_: call):
        options = dict(port.patcher.clone().model_options["transformer_options"])
        got = port.unet(call.sample, call.timestep, context=call.context, transformer_options=options)
    assert torch.equal(got, wanted)
    assert not port.patcher.model_options["transformer_options"].get("patches")


def test_recording_at_every_block_gives_shapes_of_the_ldm_blocks(port: Port) -> None:
    call, bank = a_call(), Bank()
    port.run(call, [record(site, bank) for site in BLOCKS])
    widths = [32] * 4 + [64] * 3 + [128] * 3 + [128] * 2 + [128] + [128] * 3 + [128] * 3 + [64] * 3 + [32] * 3
    heights = [16] * 3 + [8] * 3 + [4] * 3 + [2] * 3 + [2] + [2, 2, 4] + [4, 4, 8] + [8, 8, 16] + [16] * 3
    assert [(t.shape[1], t.shape[2]) for t in bank.values()] == list(zip(widths, heights, strict=True))

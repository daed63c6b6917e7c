"""What every port promises, on the small UNets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lib_hellomeme.taps.bank import Bank, record
from lib_hellomeme.taps.residual import add_residual
from lib_hellomeme.unet.forge import ForgePort
from lib_hellomeme.unet.ldm import LdmPort
from lib_hellomeme.unet.port import DOWN, SITES, TEMPORAL, TIME_EMBEDDING, Call, Port, Tap
from tests.goldens_format import seeded
from tests.tiny import PORTS, run_unet, uncond_cond


@pytest.fixture(scope="module", params=PORTS)
def port(request: pytest.FixtureRequest) -> Port:
    return PORTS[request.param]()


@pytest.fixture(autouse=True)
def _without_gradients() -> object:
    with torch.inference_mode():
        yield


def a_call(height: int = 16, width: int = 24) -> Call:
    sample, context = seeded("call/sample", (2, 4, height, width)), seeded("call/context", (2, 7, 64))
    return Call(sample, torch.full((2,), 500), context, uncond_cond(), progress=0.25)


def doubled(hidden: Tensor, call: Call) -> Tensor:
    return 2 * hidden


PLACES = [(site, False) for site in (*SITES, *TEMPORAL, TIME_EMBEDDING)] + [(site, True) for site in DOWN]


@pytest.mark.parametrize(("site", "skip"), PLACES)
def test_a_tap_changes_the_output_and_leaves_no_trace(port: Port, site: str, skip: bool) -> None:
    call = a_call()
    plain = run_unet(port, call)
    with port.attach([Tap(site, doubled, skip)], lambda *_: call):
        assert not torch.equal(run_unet(port, call), plain)
    assert torch.equal(run_unet(port, call), plain)


@pytest.mark.parametrize(("site", "skip"), PLACES)
def test_the_ports_name_the_same_places(port: Port, site: str, skip: bool) -> None:
    # at a height of 20 latents the levels round, which only A1111's changes to LDM's UNet allow
    call = a_call() if isinstance(port, LdmPort) else a_call(20, 24)
    taps = [Tap(site, doubled, skip)]
    torch.testing.assert_close(port.run(call, taps), PORTS["diffusers"]().run(call, taps), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_in_the_middle_leaves_no_trace(port: Port, error: type[BaseException]) -> None:
    call = a_call()
    plain = run_unet(port, call)

    def fail(hidden: Tensor, call: Call) -> Tensor:
        raise error

    with pytest.raises(error), port.attach([Tap("up.1", fail)], lambda *_: call):
        run_unet(port, call)
    assert torch.equal(run_unet(port, call), plain)


def test_a_call_that_failed_does_not_leak_into_the_next(port: Port) -> None:
    call, seen = a_call(), []

    def fail_once(hidden: Tensor, call: Call) -> Tensor:
        seen.append(call.progress)
        if len(seen) == 1:
            raise ValueError
        return hidden

    described = iter([call, None])  # the second call is to be left alone
    with port.attach([Tap("up.1", fail_once)], lambda *_: next(described)):
        with pytest.raises(ValueError):  # noqa: PT011
            run_unet(port, call)
        run_unet(port, call)
    assert seen == [0.25]


def test_taps_see_the_described_call_and_run_in_order(port: Port) -> None:
    call, order = a_call(), []

    def note(name: str) -> Callable[[Tensor, Call], Tensor]:
        def tap(hidden: Tensor, running: Call) -> Tensor:
            assert running is call
            order.append(name)
            return hidden

        return tap

    taps = [Tap("down.1", note("value")), Tap("down.1", note("a"), skip=True), Tap("down.1", note("b"), skip=True)]
    with port.attach(taps, lambda *_: call):
        run_unet(port, call)
    assert order == ["a", "b", "value"]


def test_describe_is_given_what_the_unet_is_given(port: Port) -> None:
    call, given = a_call(), []

    def describe(*arguments: object) -> None:
        given.append(arguments)

    with port.attach([], describe):
        run_unet(port, call)
    sample, timestep, context, options = given[0]
    assert torch.equal(sample, call.sample)
    assert torch.equal(context, call.context)
    assert timestep.tolist() == [500, 500]
    assert isinstance(port, ForgePort) or options == {}


def test_a_bare_pass_inside_a_call_meets_silent_taps(port: Port) -> None:
    call, bank = a_call(), Bank()
    plain = run_unet(port, call)
    inner: list[Tensor] = []

    def begin(call: Call) -> None:
        inner.append(port.run(call, [record("up.2", bank)]))

    with port.attach([Tap("up.2", doubled)], lambda *_: call, begin):
        assert not torch.equal(run_unet(port, call), plain)
    assert torch.equal(inner[0], port.run(call))
    torch.testing.assert_close(inner[0], plain)
    assert bank["up.2"].shape == (2, 128, 8, 12)


def test_recording_comes_before_control(port: Port) -> None:
    call, bank, ones = a_call(), Bank(), torch.ones(2, 1, 1, 1)
    clean = Bank()
    port.run(call, [record("down.0", clean)])
    port.run(call, [record("down.0", bank), add_residual("down.0", lambda _: ones.expand(2, 32, 8, 12))])
    assert torch.equal(bank["down.0"], clean["down.0"])


def test_a_foreign_forward_is_kept_and_passed_by_in_bare_passes(port: Port) -> None:
    """ControlNet assigns `forward` on the instance: it must still be there afterwards, and not run in our passes."""
    call, unet = a_call(), port.unet  # type: ignore[attr-defined]
    own, calls = unet.forward, []

    def foreign(*args: object, **kwargs: object) -> object:
        calls.append(1)
        return own(*args, **kwargs)

    unet.forward = foreign
    try:
        with port.attach([Tap("mid", doubled)], lambda *_: call, lambda call: [port.run(call), None][1]):
            run_unet(port, call)
        assert unet.forward is foreign
        assert len(calls) == 1
    finally:
        del unet.forward


def test_a_residual_of_another_size_is_fitted(port: Port) -> None:
    call = a_call()
    small = seeded("small", (2, 128, 3, 5))
    large = torch.nn.functional.interpolate(small, size=(4, 6), mode="nearest")
    run = [port.run(call, [add_residual("up.1", lambda _, residual=residual: residual)]) for residual in (small, large)]
    assert torch.equal(*run)


def test_a_bare_pass_is_seen_by_no_tap_of_any_port(port: Port) -> None:
    """Two recipes on one UNet: the pass that one runs when a call begins meets the other's silent taps."""
    call, passes = a_call(), []
    plain = port.run(call)

    def write(begun: Call) -> None:
        passes.append(port.run(begun))

    taps = [Tap("mid", doubled), Tap(TIME_EMBEDDING, doubled)]
    with port.attach(taps, lambda *_: call, write), port.attach(taps, lambda *_: call, write):
        run_unet(port, call)
    assert len(passes) == 2
    for output in passes:
        assert torch.equal(output, plain)

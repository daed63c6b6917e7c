"""Reference units: what they promise beyond the golden values, and the faults of the known implementation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from lib_hellomeme.errors import HostError, SettingsError
from lib_hellomeme.recipes.reference import BLOCK_GATES, ReferenceUnits, Unit
from lib_hellomeme.sampling.banks import KEPT_PASSES, Writing
from lib_hellomeme.taps.adain import Style, adain, record_statistics
from lib_hellomeme.taps.attention import Look, read, record_tokens
from lib_hellomeme.taps.bank import Bank
from lib_hellomeme.unet.diffusers import DiffusersPort
from lib_hellomeme.unet.hooks import _host_rows
from lib_hellomeme.unet.ldm import LdmPort
from lib_hellomeme.unet.port import SELF_ATTENTION, AttentionTap, Call, Parts, Port, Rows, Tap
from tests.goldens_format import seed_weights, seeded
from tests.tiny import CONFIG, CONTEXT_WIDTH, PORTS, ldm_unet, run_unet

ALPHAS = torch.linspace(0.999, 0.005, 1000)
CLOSE: dict[str, Any] = {"atol": 2e-5, "rtol": 1e-4}  # what another number of rows in a batch may change


@pytest.fixture(scope="module", params=PORTS)
def port(request: pytest.FixtureRequest) -> Port:
    return PORTS[request.param]()


@pytest.fixture(autouse=True)
def _without_gradients() -> object:
    with torch.inference_mode():
        yield


def latents(name: str, height: int = 16, width: int = 16) -> Tensor:
    return seeded(f"units/{name}", (1, 4, height, width))


def prompt(name: str, tokens: int = 7) -> Tensor:
    return seeded(f"units/prompt/{name}", (1, tokens, CONTEXT_WIDTH))


def call_of(*rows: tuple[str, int], timestep: float = 601.0, progress: float = 0.0, size: tuple = (16, 16)) -> Call:
    """Rows like ("cond", 0): cond or uncond, and which picture of the batch."""
    return Call(
        torch.cat([latents(f"sample{picture}", *size) for _, picture in rows]),
        torch.full((len(rows),), timestep),
        torch.cat([prompt(kind) for kind, _ in rows]),
        Rows(tuple(kind == "uncond" for kind, _ in rows), picture=tuple(picture for _, picture in rows)),
        progress,
    )


BOTH = (("cond", 0), ("uncond", 0))


def units(port: Port, *given: Unit, writing: Writing | None = None, **options: object) -> ReferenceUnits:
    written = [replace(unit, writing=writing or unit.writing) for unit in given]
    return ReferenceUnits(port, written, ALPHAS, **options)  # type: ignore[arg-type]


def sampled(port: Port, recipe: ReferenceUnits, *calls: Call) -> list[Tensor]:
    """The UNet's outputs in calls that follow each other."""
    described = iter(calls)
    with port.attach(recipe.taps(), lambda *_: next(described), recipe.begin):
        return [run_unet(port, call) for call in calls]


A, B = Unit(latents("a")), Unit(latents("b", 24, 8))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_units_of_different_kinds_keep_their_banks(port: Port, order: tuple[int, int]) -> None:
    """There, [reference_only, reference_adain] loses all attention banks."""
    call, tokens, styles = call_of(*BOTH), Bank(), Bank()
    a, b = replace(A, fidelity=0.25), replace(B, kind="reference_adain", fidelity=0.75)

    def noise(name: str) -> object:
        return lambda call, row: latents(f"noise/{name}{row}", *{"a": (16, 16), "b": (24, 8)}[name])

    def noised(unit: Unit, name: str) -> Call:
        drawn = torch.cat([noise(name)(call, row) for row in range(2)])  # type: ignore[operator]
        return replace(call, sample=ALPHAS[601].sqrt() * unit.latents + (1 - ALPHAS[601]).sqrt() * drawn)

    port.run(noised(a, "a"), [record_tokens(site, tokens) for site in SELF_ATTENTION])
    port.run(noised(b, "b"), [record_statistics(site, styles) for site in b.sites])
    taps = [read(site, lambda _, site=site: [Look(tokens[site], (1.0, 0.75))]) for site in SELF_ATTENTION]
    wanted = port.run(
        call, [*taps, *(adain(site, lambda _, site=site: [Style(styles[site], (1.0, 0.25))]) for site in styles)]
    )
    given = [((a, b)[i], noise("ab"[i])) for i in order]
    recipe = units(port, *(unit for unit, _ in given), noise=[each for _, each in given])
    torch.testing.assert_close(sampled(port, recipe, call)[0], wanted, **CLOSE)


def test_start_and_end_are_not_late(port: Port) -> None:
    calls = [call_of(*BOTH, progress=step / 4) for step in range(4)]
    plain = run_unet(port, calls[0])
    recipe = units(port, replace(A, start=0.25, end=0.75))
    acts = [not torch.equal(output, plain) for output in sampled(port, recipe, *calls)]
    assert acts == [False, True, True, False]
    last = units(port, replace(A, start=0.5))
    assert [not torch.equal(output, plain) for output in sampled(port, last, *calls)] == [False, False, True, True]


@pytest.mark.parametrize("kind", ["reference_only", "reference_adain+attn"])
def test_rows_may_come_split_dropped_and_in_any_order(port: Port, kind: str) -> None:
    """Low memory splits cond and uncond, NGMS drops uncond rows: there, the first is wrong and the second crashes."""
    unit = replace(A, kind=kind, weight=1.5)
    (together,) = sampled(port, units(port, unit), call_of(*BOTH))
    for calls in ([("cond", 0)], [("uncond", 0)]), ([("uncond", 0)], [("cond", 0)]), ([*BOTH], [("cond", 0)]):
        outputs = sampled(port, units(port, unit), *(call_of(*rows) for rows in calls))
        for rows, output in zip(calls, outputs, strict=True):
            wanted = torch.stack([together[BOTH.index(row)] for row in rows])
            torch.testing.assert_close(output, wanted, **CLOSE)


def test_prompts_may_differ_in_length(port: Port) -> None:
    (together,) = sampled(port, units(port, A), call_of(*BOTH))
    long = replace(call_of(("uncond", 0)), context=prompt("long", 14))
    outputs = sampled(port, units(port, A), call_of(("cond", 0)), long)
    torch.testing.assert_close(outputs[0], together[:1], **CLOSE)
    assert not torch.allclose(outputs[1], together[1:], atol=1e-3)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kind", ["noised", "clean", "once"])
def test_a_picture_does_not_depend_on_its_batch(port: Port, kind: str, shared: bool) -> None:
    rows = [("cond", 0), ("cond", 1), ("uncond", 0), ("uncond", 1)]
    writing = Writing(kind, context=prompt("empty") if shared else None)  # type: ignore[arg-type]
    (batch,) = sampled(port, units(port, A, B, seeds=(7, 8), writing=writing), call_of(*rows))
    alone = replace(call_of(("cond", 1), ("uncond", 1)), rows=Rows((False, True)))
    (single,) = sampled(port, units(port, A, B, seeds=(8,), writing=writing), alone)
    torch.testing.assert_close(batch[[1, 3]], single, **CLOSE)


def test_the_hires_pass_has_another_size_and_its_uncond_rows(port: Port) -> None:
    call = call_of(*BOTH, size=(24, 32))
    plain = run_unet(port, call)
    outputs = [sampled(port, units(port, replace(A, fidelity=f)), call)[0] for f in (0.0, 0.5, 1.0)]
    torch.testing.assert_close(outputs[2][1], plain[1], **CLOSE)
    for a, b in ((0, 1), (1, 2)):
        assert not torch.allclose(outputs[a][1], outputs[b][1], atol=1e-4)
        torch.testing.assert_close(outputs[a][0], outputs[b][0], **CLOSE)


def test_nothing_stays_behind(port: Port) -> None:
    call, unet = call_of(*BOTH), port.unet  # type: ignore[attr-defined]
    plain = run_unet(port, call)
    both = replace(A, kind="reference_adain+attn", weight=2.0)
    assert not torch.allclose(sampled(port, units(port, both, B), call)[0], plain, atol=1e-3)
    assert torch.equal(run_unet(port, call), plain)
    for module in unet.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "forward" not in vars(module)
        assert "_forward" not in vars(module)


def test_noise_comes_from_the_picture_s_seed_alone(port: Port) -> None:
    call = call_of(*BOTH)
    torch.manual_seed(1)
    (first,) = sampled(port, units(port, A, seeds=(42,)), call)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    (second,) = sampled(port, units(port, A, seeds=(42,)), call)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.allclose(first, sampled(port, units(port, A, seeds=(43,)), call)[0], atol=1e-3)
    earlier = call_of(*BOTH, timestep=801.0)
    assert torch.equal(sampled(port, units(port, A, seeds=(42,)), earlier, call)[1], first)


def test_units_that_can_do_nothing_do_nothing(port: Port) -> None:
    call = call_of(*BOTH)
    off = units(port, replace(A, weight=0.0), replace(A, strength=0.0), replace(A, kind="reference_adain", weight=0.0))
    assert off.taps() == []
    assert torch.equal(sampled(port, off, call)[0], run_unet(port, call))


def test_the_same_unit_may_stand_twice(port: Port) -> None:
    recipe = units(port, A, A)
    assert not torch.equal(sampled(port, recipe, call_of(*BOTH))[0], sampled(port, units(port, A), call_of(*BOTH))[0])


class Passes:
    """Counts the write passes of a port: rows and timestep of each."""

    def __init__(self, port: Port) -> None:
        self.seen: list[tuple[int, float]] = []
        own = port.run

        def run(call: Call, taps: Sequence[object] = ()) -> Tensor:
            self.seen.append((len(call.rows), float(call.timestep[0])))
            return own(call, taps)  # type: ignore[arg-type]

        self.patch = mock.patch.multiple(port, run=run, room=lambda call: 0)


@pytest.mark.parametrize(
    ("writing", "wanted"),
    [
        (Writing(), [(2, 800.0), (2, 600.0), (2, 400.0), (2, 200.0)]),
        (Writing(context=prompt("empty")), [(1, 800.0), (1, 600.0), (1, 400.0), (1, 200.0)]),
        (Writing("clean"), [(2, 800.0), (2, 600.0), (2, 400.0), (2, 200.0)]),
        (Writing("once"), [(2, 0.0)]),
        (Writing("once", context=prompt("empty")), [(1, 0.0)]),
        (Writing(every=2), [(2, 800.0), (2, 400.0)]),
        (Writing(every=3, context=prompt("empty")), [(1, 800.0), (1, 200.0)]),
    ],
)
@pytest.mark.parametrize("split", [False, True])
def test_what_is_written_and_when(writing: Writing, wanted: list[tuple[int, float]], split: bool) -> None:
    port = PORTS["diffusers"]()
    steps = [call_of(*BOTH, timestep=t) for t in (800.0, 600.0, 400.0, 200.0)]
    if split:
        steps = [
            replace(s, sample=s.sample[i], timestep=s.timestep[i], context=s.context[i], rows=s.rows.chosen([k]))
            for s in steps
            for k, i in enumerate((slice(0, 1), slice(1, 2)))
        ]
    passes = Passes(port)
    with passes.patch:
        sampled(port, units(port, A, writing=writing), *steps)
    if split and writing.context is None:  # each call writes its own row
        assert passes.seen == [(1, t) for _, t in wanted for _ in range(2)]
    else:
        assert passes.seen == wanted


def test_uncond_rows_that_read_nothing_are_not_written() -> None:
    port = PORTS["diffusers"]()
    passes = Passes(port)
    with passes.patch:
        sampled(port, units(port, replace(A, mode="ControlNet is more important")), call_of(*BOTH))
        sampled(port, units(port, replace(A, fidelity=1.0)), call_of(("uncond", 0)))
    assert passes.seen == [(1, 601.0)]


def test_alternating_prompts_are_written_once_each() -> None:
    port = PORTS["diffusers"]()
    calls = [replace(call_of(*BOTH), context=torch.cat([prompt(name), prompt("uncond")])) for name in "xyxyxy"]
    passes, recipe = Passes(port), units(port, A, writing=Writing("once"))
    with passes.patch:
        sampled(port, recipe, *calls)
        assert len(passes.seen) == 2
        many = [replace(calls[0], context=torch.cat([prompt(f"{k}"), prompt("uncond")])) for k in range(9)]
        sampled(port, recipe, *many)
    assert len(recipe.units[0][1]._written) == KEPT_PASSES


def test_a_shared_row_gives_the_same_however_the_rows_come(port: Port) -> None:
    writing = Writing(context=prompt("empty"))
    (together,) = sampled(port, units(port, A, writing=writing), call_of(*BOTH))
    split = sampled(port, units(port, A, writing=writing), call_of(("uncond", 0)), call_of(("cond", 0)))
    torch.testing.assert_close(torch.cat(split[::-1]), together, **CLOSE)


def test_masks_choose_where_to_look_and_where_to_apply(port: Port) -> None:
    call, ones = call_of(*BOTH), torch.ones(1, 1, 128, 128)
    half = ones.clone()
    half[..., :64] = 0
    for kind in ("reference_only", "reference_adain+attn"):
        unit = replace(A, kind=kind, weight=1.5)
        (plain, everything, look, apply) = (
            sampled(port, units(port, each), call)[0]
            for each in (replace(unit, weight=0.0), unit, replace(unit, look=half), replace(unit, apply=half))
        )
        for wrapped in (replace(unit, look=ones), replace(unit, apply=ones)):
            torch.testing.assert_close(sampled(port, units(port, wrapped), call)[0], everything, **CLOSE)
        assert not torch.allclose(look, everything, atol=1e-3)
        change = (apply - plain).abs().mean((0, 1, 2))
        assert change[8:].mean() > 1.2 * change[:8].mean()  # features of far places meet in the middle


def test_strength_moves_from_plain_to_the_whole_effect(port: Port) -> None:
    call, unit = call_of(*BOTH), replace(A, kind="reference_adain+attn", weight=1.5)
    plain = run_unet(port, call)
    outputs = [sampled(port, units(port, replace(unit, strength=s)), call)[0] for s in (0.01, 0.25, 0.5, 0.999, 1.0)]
    distances = [float((output - plain).square().mean()) for output in outputs]
    assert distances == sorted(distances)
    torch.testing.assert_close(outputs[0], plain, atol=2e-2, rtol=0)
    torch.testing.assert_close(outputs[3], outputs[4], atol=2e-2, rtol=0)


def test_inpainting_checkpoints_are_given_a_mask_that_hides_nothing() -> None:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(in_channels=9, **CONFIG)
    seed_weights(unet)
    port, seen = DiffusersPort(unet), []
    call = replace(call_of(*BOTH), sample=seeded("units/inpaint", (2, 9, 16, 16)))
    own = port.run

    def run(call: Call, taps: Sequence[object] = ()) -> Tensor:
        seen.append(call.sample)
        return own(call, taps)  # type: ignore[arg-type]

    with mock.patch.multiple(port, run=run, room=lambda call: 0):
        (alone,) = sampled(port, units(port, A), call)
    (riding,) = sampled(port, units(port, A), call)
    torch.testing.assert_close(riding, alone, **CLOSE)
    assert not torch.allclose(seen[0][:, :4], A.latents)
    assert not seen[0][:, 4].any()
    assert torch.equal(seen[0][:, 5:], A.latents.expand(2, -1, -1, -1))


RIDES = [name for name in PORTS if name != "forge"]
LOOK = torch.zeros(1, 1, 128, 128)
LOOK[..., 32:] = 1


@pytest.mark.parametrize("name", RIDES)
@pytest.mark.parametrize(
    "given",
    [
        (A,),
        (replace(A, writing=Writing(context=prompt("empty"))),),
        (replace(A, writing=Writing("once", context=prompt("empty"))),),
        (replace(A, kind="reference_adain+attn", weight=1.5, look=LOOK), replace(A, fidelity=1.0, strength=0.5)),
        (replace(A, kind="reference_adain", apply=LOOK), B),  # the second has another size, so it cannot
    ],
)
def test_riding_gives_what_a_pass_of_its_own_gives(name: str, given: tuple[Unit, ...]) -> None:
    port = PORTS[name]()
    rows = [("cond", 0), ("cond", 1), ("uncond", 0), ("uncond", 1)]
    calls = [call_of(*rows), call_of(("uncond", 1), ("cond", 0), timestep=401.0)]
    with mock.patch.object(port, "room", return_value=0):
        wanted = sampled(port, units(port, *given, seeds=(7, 8)), *calls)
    with mock.patch.object(port, "run", wraps=port.run) as passes:
        got = sampled(port, units(port, *given, seeds=(7, 8)), *calls)
    assert passes.call_count == (2 if given[-1] is B else 0)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


@pytest.mark.parametrize("name", RIDES)
def test_long_prompts_carry_a_row_with_a_short_one(name: str) -> None:
    port, writing = PORTS[name](), Writing(context=prompt("empty"))
    long = replace(call_of(*BOTH), context=torch.cat([prompt("x", 21), prompt("y", 21)]))
    with mock.patch.object(port, "room", return_value=0):
        wanted = sampled(port, units(port, A, writing=writing), long)
    with mock.patch.object(port, "run", side_effect=AssertionError):
        torch.testing.assert_close(sampled(port, units(port, A, writing=writing), long), wanted, **CLOSE)
    odd = replace(long, context=long.context[:, :20])
    with pytest.raises(AssertionError), mock.patch.object(port, "run", side_effect=AssertionError):
        sampled(port, units(port, A, writing=writing), odd)


def test_nothing_rides_where_others_are_at_work() -> None:
    port = PORTS["ldm"]()
    assert isinstance(port, LdmPort)
    layer, call = port.blocks[4], call_of(*BOTH)
    assert port.room(call) == 62  # of 16 x 16 places each
    handle = layer.register_forward_hook(ordered)
    assert port.room(call) == 0
    handle.remove()
    layer.forward = layer.forward  # type: ignore[method-assign]  # as sd-webui-controlnet leaves them
    assert port.room(call) == 62
    layer.forward = lambda *given: given  # type: ignore[method-assign]
    assert port.room(call) == 0
    del layer.forward
    layer.append(Foreign())  # type: ignore[operator]
    assert port.room(call) == 0
    del layer[-1]  # type: ignore[index]
    assert port.room(call) == 62
    assert port.room(call_of(*BOTH, size=(96, 96))) == 0


def test_nothing_rides_where_the_unet_is_given_more() -> None:
    """What else it is given may have a row for each of the host's."""
    port, call = PORTS["ldm"](), call_of(*BOTH)
    for more, passes in (({}, 0), ({"y": None}, 0), ({"control": [torch.zeros(2, 4)]}, 1)):
        recipe = units(port, A)
        with (
            mock.patch.object(port, "run", wraps=port.run) as run,
            port.attach(recipe.taps(), lambda *_: call, recipe.begin),
        ):
            port.unet(call.sample, call.timestep, context=call.context, **more)  # type: ignore[attr-defined]
        assert run.call_count == passes


def test_nothing_rides_where_prompts_carry_a_mark() -> None:
    """As sd-webui-controlnet's do; the call is described without it, so that the row that rides has none."""
    port, call = PORTS["ldm"](), call_of(*BOTH)
    marked = replace(call, context=torch.cat([torch.full((2, 1, CONTEXT_WIDTH), 1024.0), call.context], dim=1))
    recipe = units(port, A)
    with (
        mock.patch.object(port, "run", wraps=port.run) as run,
        port.attach(recipe.taps(), lambda *_: call, recipe.begin),
    ):
        run_unet(port, marked)
    assert run.call_count == 1


def ordered(module: torch.nn.Module, given: tuple, output: Tensor) -> None:
    """A hook of somebody else's."""


class Foreign(torch.nn.Identity):
    """A module of somebody else's."""


@pytest.mark.parametrize("name", RIDES)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_call_that_breaks_off_leaves_nothing_of_what_rode(name: str, error: type[BaseException]) -> None:
    port, call = PORTS[name](), call_of(*BOTH)
    recipe, plain = units(port, A, writing=Writing("once")), run_unet(port, call)
    wanted = sampled(port, units(port, A, writing=Writing("once")), call)

    def fail(hidden: Tensor, call: Call) -> Tensor:
        raise error

    with pytest.raises(error), port.attach([Tap("block.14", fail)], lambda *_: call):
        sampled(port, recipe, call)
    assert not _host_rows
    assert torch.equal(run_unet(port, call), plain)
    torch.testing.assert_close(sampled(port, recipe, call), wanted)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", RIDES)
def test_others_do_not_see_what_rides(name: str, first: bool) -> None:
    """Another recipe's taps and its describing, attached before or after."""
    port, call, seen = PORTS[name](), call_of(*BOTH), []

    def doubled(hidden: Tensor, call: Call) -> Tensor:
        assert len(hidden) == 2
        return 2 * hidden

    def halved(x: Tensor, parts: Parts, call: Call) -> Parts:
        assert len(x) == len(parts[0]) == 2
        return (parts[0][:, : parts[0].shape[1] // 2],)

    def describe(sample: Tensor, timestep: Tensor, context: Tensor, options: object) -> Call:
        seen.append((len(sample), len(timestep), len(context)))
        return call

    taps = [Tap("mid", doubled), Tap("up.1", doubled), AttentionTap("self_attention.3", halved)]
    recipe = units(port, A)

    def both() -> Tensor:
        ours = port.attach(recipe.taps(), lambda *_: call, recipe.begin)
        theirs = port.attach(taps, describe)
        one, other = (theirs, ours) if first else (ours, theirs)
        with one, other:
            return run_unet(port, call)

    got = both()
    with mock.patch.object(port, "room", return_value=0):
        recipe = units(port, A)
        torch.testing.assert_close(got, both(), **CLOSE)
    assert seen == [(2, 2, 2)] * 2


@pytest.mark.parametrize("wishes", [{"kind": "reference"}, {"mode": "balanced"}, {"look": torch.zeros(1, 1, 8, 8)}])
def test_what_cannot_be_is_refused_with_one_line(wishes: dict) -> None:
    with pytest.raises(SettingsError) as caught:
        replace(A, **wishes)
    assert "\n" not in str(caught.value)


def test_weights_open_gates_and_never_close_one() -> None:
    unit = replace(A, kind="reference_adain+attn")
    sites = [set(replace(unit, weight=w / 100).sites) for w in range(201)]
    assert all(a <= b for a, b in itertools.pairwise(sites))
    assert len(sites[0]) == 0
    assert len(sites[200]) == len(SELF_ATTENTION) + len(BLOCK_GATES) - 1  # input block 4: its gate, 2, stays shut


def test_merged_tokens_are_written_and_read_merged() -> None:
    """Token merging replaces `_forward` of the transformer blocks, as ControlNet does too and so undoes it."""
    port, call = LdmPort(ldm_unet()), call_of(*BOTH)  # one of its own: its blocks are replaced below
    whole = sampled(port, units(port, A), call)[0]

    def merge(block: Any) -> None:
        def merged(x: Tensor, context: Tensor) -> Tensor:
            x = block.attn1(block.norm1(x)[:, ::2], context=None).repeat_interleave(2, dim=1) + x
            x = block.attn2(block.norm2(x), context=context) + x
            return block.ff(block.norm3(x)) + x

        block._forward = merged

    for module in port.unet.modules():
        if hasattr(module, "attn1"):
            merge(module)
    plain = run_unet(port, call)
    got = sampled(port, units(port, replace(A, fidelity=1.0)), call)[0]
    torch.testing.assert_close(got[1], plain[1], **CLOSE)
    assert not torch.allclose(got[0], plain[0], atol=1e-3)
    assert not torch.allclose(got[0], whole[0], atol=1e-3)
    assert torch.equal(run_unet(port, call), plain)
    with pytest.raises(HostError, match="token merging"):
        sampled(port, units(port, replace(A, look=torch.ones(1, 1, 8, 8))), call)

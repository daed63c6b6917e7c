"""Which rows read what, when, and when the write pass runs."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lib_hellomeme.errors import HostError
from lib_hellomeme.networks.reference import ReferenceAdapter
from lib_hellomeme.recipes.hellomeme import OWN, Reenactment, Source, of_rows
from lib_hellomeme.unet.ldm import LdmPort
from lib_hellomeme.unet.port import Call, Port, Rows
from tests.goldens_format import seed_weights, seeded
from tests.tiny import PORTS, WIDTHS, ldm_unet, run_unet

CONTROL_SHAPES = {"down.0": (32, 8, 12), "down.3": (128, 2, 3), "up.0": (128, 2, 3), "up.3": (64, 16, 24)}
PROMPTS = {"cond": seeded("prompt", (7, 64)), "other": seeded("other", (7, 64)), "uncond": seeded("negative", (7, 64))}


class CountingPort:
    """A port that counts its bare passes and their rows."""

    def __init__(self, port: Port) -> None:
        self.port, self.passes, self.in_channels = port, [], port.in_channels

    def __getattr__(self, name: str) -> Any:
        return getattr(self.port, name)

    def run(self, call: Call, taps: object) -> Tensor:
        self.passes.append(call.rows.uncond)
        return self.port.run(call, taps)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def ldm() -> Port:
    return PORTS["ldm"]()


@pytest.fixture(scope="module")
def adapter() -> nn.Module:
    network = ReferenceAdapter(WIDTHS)
    seed_weights(network)
    return network


@pytest.fixture
def port(ldm: Port) -> CountingPort:
    return CountingPort(ldm)


def a_reenactment(port: CountingPort, adapter: ReferenceAdapter, **options: float) -> Reenactment:
    control = {site: 0.5 * seeded(f"control/{site}", (2, *shape)) for site, shape in CONTROL_SHAPES.items()}
    reference = seeded("reference", (1, 4, 16, 24))
    return Reenactment(port, adapter.sites(), reference, control, control, **options)  # type: ignore[arg-type]


def a_call(*kinds: str, progress: float = 0.0) -> Call:
    """One row a kind; all rows of one sample, so that results can be told apart by their prompts alone."""
    sample = seeded("sample", (1, 4, 16, 24)).expand(len(kinds), -1, -1, -1)
    context = torch.stack([PROMPTS[kind] for kind in kinds])
    rows = Rows(tuple(kind == "uncond" for kind in kinds))
    return Call(sample, torch.full((len(kinds),), 500), context, rows, progress)


def draw(port: CountingPort, reenactment: Reenactment, *calls: Call) -> list[Tensor]:
    """The UNet's outputs for these calls of one sampling."""
    queue = list(calls)
    with port.attach(reenactment.taps(), lambda *_: queue.pop(0), reenactment.begin):
        return [run_unet(port.port, call) for call in calls]


def test_split_batches_give_what_whole_ones_give(port: CountingPort, adapter: ReferenceAdapter) -> None:
    kinds = ("uncond", "cond", "other", "cond")
    [whole] = draw(port, a_reenactment(port, adapter), a_call(*kinds))
    single = draw(port, a_reenactment(port, adapter), *(a_call(kind) for kind in kinds))
    torch.testing.assert_close(torch.cat(single), whole, atol=1e-5, rtol=1e-4)


def test_rows_are_shared_and_the_pass_is_written_once(port: CountingPort, adapter: ReferenceAdapter) -> None:
    batch, steps = a_call("uncond", "uncond", "cond", "cond"), 3
    outputs = draw(
        port, a_reenactment(port, adapter), *(replace(batch, progress=step / steps) for step in range(steps))
    )
    assert port.passes == [(True, False)]
    assert torch.equal(outputs[0], outputs[2])
    torch.testing.assert_close(outputs[0][0], outputs[0][1])


def test_a_batch_with_another_prompt_is_written_again(port: CountingPort, adapter: ReferenceAdapter) -> None:
    reenactment = a_reenactment(port, adapter)
    first, second = draw(port, reenactment, a_call("cond", "uncond"), a_call("other", "uncond"))
    assert port.passes == [(False, True), (False, True)]
    assert not torch.allclose(first[0], second[0], atol=1e-3)


def test_dropped_uncond_rows_need_no_new_pass(port: CountingPort, adapter: ReferenceAdapter) -> None:
    whole, alone = draw(port, a_reenactment(port, adapter), a_call("cond", "uncond"), a_call("cond"))
    assert port.passes == [(False, True)]
    torch.testing.assert_close(alone[0], whole[0], atol=1e-5, rtol=1e-4)


def test_prompts_of_other_lengths(port: CountingPort, adapter: ReferenceAdapter) -> None:
    call = a_call("uncond")
    longer = replace(a_call("cond"), context=torch.cat([PROMPTS["cond"], PROMPTS["other"]])[None])
    draw(port, a_reenactment(port, adapter), call, longer, call)
    assert port.passes == [(True,), (False,)]


def test_the_networks_act_between_start_and_end(port: CountingPort, adapter: ReferenceAdapter) -> None:
    reenactment = a_reenactment(port, adapter, start=0.3, end=0.6)
    calls = [a_call("uncond", "cond", progress=progress) for progress in (0.0, 0.3, 0.5, 0.6, 0.9)]
    outputs = draw(port, reenactment, *calls)
    plain = run_unet(port.port, calls[0])
    assert [torch.equal(output, plain) for output in outputs] == [True, False, False, True, True]


def test_reference_weight_scales_what_is_added(port: CountingPort, adapter: ReferenceAdapter) -> None:
    call = a_call("uncond", "cond")

    def change(weight: float) -> float:
        return float((draw(port, a_reenactment(port, adapter, weight=weight), call)[0] - nothing).norm())

    [nothing] = draw(port, a_reenactment(port, adapter, weight=0.0), call)
    assert port.passes == []  # without readers nothing needs to be written
    changes = [change(weight) for weight in (0.25, 0.5, 1.0)]
    assert changes == sorted(changes)
    assert changes[0] > 0


def test_a_picture_in_pieces_is_refused(port: CountingPort, adapter: ReferenceAdapter) -> None:
    call = a_call("cond")
    with pytest.raises(HostError, match="128 x 128, the reference is 192 x 128"):
        draw(port, a_reenactment(port, adapter), replace(call, sample=call.sample[..., :16]))


def test_inpainting_unets_are_refused(port: CountingPort, adapter: ReferenceAdapter) -> None:
    port.in_channels = 9
    with pytest.raises(HostError, match="Inpainting"):
        a_reenactment(port, adapter)


def test_networks_of_another_width_are_refused(
    port: CountingPort, adapter: ReferenceAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port.port, "widths", (320, 640, 1280, 1280))
    with pytest.raises(HostError, match=r"32 channels at down\.0, the checkpoint's has 320"):
        a_reenactment(port, adapter)


def test_rows_take_the_control_of_nobody_or_of_their_frame() -> None:
    control = torch.arange(3.0)[:, None, None, None]
    assert of_rows(control, Rows((True, False, False), (0, 1, 0))).flatten().tolist() == [0, 2, 1]
    assert of_rows(control[:2], Rows((True, False))) is not None


class Keeping:
    """A layer that keeps what the write pass left at its site, and adds nothing."""

    features: Tensor

    def prepare(self, features: Tensor) -> Keeping:
        self.features = features
        return self

    def rows(self, index: Tensor) -> Keeping:
        return self

    def read(self, hidden: Tensor, prepared: object) -> Tensor:
        return torch.zeros_like(hidden)


def features_of(port: Any, call: Call, source: Source = OWN) -> list[Tensor]:
    """What a write pass for this call leaves, site by site."""
    layers = {site: Keeping() for site in ("down.1", "mid", "up.2")}
    reference = seeded("reference", (1, 4, 16, 24))
    reenactment = Reenactment(port, layers, reference, {}, None, source=source)
    with port.attach(reenactment.taps(), lambda *_: call, reenactment.begin):
        run_unet(getattr(port, "port", port), call)
    return [layer.features for layer in layers.values()]


@pytest.fixture(scope="module")
def other() -> LdmPort:
    """Another model of the same structure."""
    unet = ldm_unet()
    with torch.inference_mode():
        for parameter in unet.parameters():
            parameter.mul_(0.9)
    return LdmPort(unet)


def test_another_unet_leaves_what_it_leaves_by_itself(port: CountingPort, other: LdmPort) -> None:
    call = a_call("uncond", "cond")
    theirs = features_of(port, call, Source(unet=lambda: nullcontext(other)))
    for given, alone, own in zip(theirs, features_of(other, call), features_of(port, call), strict=True):
        assert torch.equal(given, alone)
        assert not torch.allclose(given, own, atol=1e-2)


def test_the_write_pass_reads_other_prompts(port: CountingPort) -> None:
    call, wished = a_call("uncond", "cond"), a_call("uncond", "other")
    written = features_of(port, call, Source(context=lambda call: wished.context))
    for given, alone, own in zip(written, features_of(port, wished), features_of(port, call), strict=True):
        assert torch.equal(given, alone)
        assert not torch.allclose(given[1], own[1], atol=1e-3)


def test_another_unet_is_there_for_one_pass_of_a_sampling(port: CountingPort, adapter: ReferenceAdapter) -> None:
    loaded = []

    @contextmanager
    def load() -> Iterator[LdmPort]:
        unet = ldm_unet()
        loaded.append(weakref.ref(unet))
        yield LdmPort(unet)

    reenactment = a_reenactment(port, adapter)
    reenactment.source = Source(unet=load)
    draw(port, reenactment, *(a_call("uncond", "cond", progress=step / 3) for step in range(3)))
    gc.collect()
    assert [unet() for unet in loaded] == [None]

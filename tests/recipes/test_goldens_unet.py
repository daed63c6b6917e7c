"""The small UNet with references and control attached agrees with the published code's, on every port."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from lib_hellomeme.networks.animatediff import AnimateDiffAdapter
from lib_hellomeme.networks.motion import KnittedMotion, KnittedMotionV5, MotionAdapter
from lib_hellomeme.networks.reference import KnittedReference, KnittedReferenceV5, ReferenceAdapter
from lib_hellomeme.recipes.hellomeme import Reenactment
from lib_hellomeme.taps.bank import Bank, record
from lib_hellomeme.taps.residual import add_residual
from lib_hellomeme.unet.port import DOWN, MID, TEMPORAL, TIME_EMBEDDING, UP, Call, Port, Tap
from tests.goldens_format import Case, cases, expect, seed_weights
from tests.tiny import PORTS, WIDTHS, run_unet, uncond_cond

ADAPTERS = {
    "v1": partial(ReferenceAdapter, WIDTHS, layer=KnittedReference, up_levels=(1, 2, 3), encoder=True),
    "v2": partial(ReferenceAdapter, WIDTHS, layer=KnittedReference, up_levels=(1, 2, 3)),
    "v3": partial(ReferenceAdapter, WIDTHS, layer=KnittedReference),
    "v5": partial(ReferenceAdapter, WIDTHS, layer=partial(KnittedReferenceV5, time_width=128)),
    "v5b": partial(ReferenceAdapter, WIDTHS),
    "v5c": partial(ReferenceAdapter, WIDTHS),
}


@pytest.fixture(scope="module", params=PORTS)
def port(request: pytest.FixtureRequest) -> Port:
    return PORTS[request.param]()


def of_frames(rows: Tensor) -> Tensor:
    """(rows, C, frames, h, w) to (rows * frames, C, h, w)."""
    return rows.transpose(1, 2).flatten(0, 1)


def site_of(golden_name: str) -> str:
    """down3_0, up_v2_3, up3_1, down_0: the site that control or features of that name belong to."""
    return f"{golden_name.split('_')[0].rstrip('23')}.{golden_name[-1]}"


def control_of(case: Case, which: str) -> dict[str, Tensor]:
    """Control by site. Where both kinds of expression are given (v1, v2), both are added."""
    control: dict[str, Tensor] = {}
    for name in case.inputs[which] or {}:
        residual = of_frames(0.5 * case.input(which, name))
        control[site_of(name)] = control.get(site_of(name), 0) + residual
    return control


def main_call(case: Case) -> Call:
    frames = case.inputs["sample"][2]
    context = case.input("context").repeat_interleave(frames, dim=0)
    timestep = torch.full((2 * frames,), case.index["timestep"])
    return Call(of_frames(case.input("sample")), timestep, context, uncond_cond(frames))


def reference_call(case: Case) -> Call:
    reference = case.input("reference")
    sample = torch.cat([torch.zeros_like(reference), reference])
    return Call(sample, torch.zeros(2, dtype=torch.long), case.input("reference_context"), uncond_cond())


def expect_frames(case: Case, output: str, got: Tensor) -> None:
    frames = case.inputs["sample"][2]
    expect(case, output, got.unflatten(0, (-1, frames)).transpose(1, 2))


def residuals(control: dict[str, Tensor]) -> list[Tap]:
    return [add_residual(site, lambda call, site=site: control[site]) for site in control]


@pytest.mark.parametrize("case", cases("unet"), ids=lambda case: case.name)
@torch.inference_mode()
def test_features_of_the_reference_pass(case: Case, port: Port) -> None:
    bank: Bank = {}
    taps = [record(site, bank) for site in (*DOWN, MID, *UP)] + residuals(control_of(case, "reference_control"))
    port.run(reference_call(case), taps)
    for output in case.outputs:
        if output.startswith("reference_features/"):
            name = output.split("/")[1]
            expect(case, output, bank[site_of(name) if name != "mid" else MID])


@pytest.mark.parametrize("with_control", [False, True])
@pytest.mark.parametrize("case", cases("unet"), ids=lambda case: case.name)
@torch.inference_mode()
def test_sampling_with_reference(case: Case, port: Port, with_control: bool) -> None:
    adapter = ADAPTERS[case.index["version"]]()
    seed_weights(adapter)
    call, written = main_call(case), reference_call(case)
    expect_frames(case, "plain", run_unet(port, call))

    write_control = control_of(case, "reference_control") or None
    reenactment = Reenactment(port, adapter.sites(), case.input("reference"), {}, write_control)

    def begin(call: Call) -> None:  # the goldens draw a context of its own for the reference pass
        context = written.context.repeat_interleave(len(call.rows) // 2, dim=0)
        reenactment.begin(replace(call, context=context))

    taps = residuals(control_of(case, "control")) if with_control else []
    with port.attach([*taps, *reenactment.taps()], lambda *_: call, begin):
        got = run_unet(port, call)
    expect_frames(case, "with_reference_and_control" if with_control else "with_reference", got)
    expect_frames(case, "plain", run_unet(port, call))


MOTION = {
    "v1": None,
    "v2": None,
    "v3": partial(MotionAdapter, WIDTHS, layer=partial(KnittedMotion, time_width=128)),
    "v5": partial(MotionAdapter, WIDTHS, layer=KnittedMotionV5),
}


def animatediff_taps(frames: int) -> list[Tap]:
    adapter = AnimateDiffAdapter(WIDTHS)
    seed_weights(adapter)
    places = [site for site in TEMPORAL if site != "temporal.8"]  # these layers leave the middle block alone
    return [
        Tap(site, lambda hidden, call, layer=layer: layer(hidden, frames))
        for site, layer in zip(places, adapter.layers().values(), strict=True)
    ]


def motion_taps(case: Case, port: Port, frames: int) -> list[Tap]:
    """Knitted motion between the features that bare passes over the first and the last frame leave."""
    build = MOTION[case.index["version"]]
    if build is None:
        return []
    adapter = build()
    seed_weights(adapter)
    banks = [Bank(), Bank()]
    for name, bank in zip(("first_frame", "last_frame"), banks, strict=True):
        latents = case.seeded(name, case.inputs["first_frame/last_frame"])
        call = replace(reference_call(case), sample=torch.cat([torch.zeros_like(latents), latents]))
        call = replace(call, context=case.input("context"))
        port.run(call, [record(site, bank) for site in adapter.sites()])
    embedding: Bank = {}

    def at(site: str, layer: torch.nn.Module) -> Tap:
        padding = torch.stack([bank[site] for bank in banks], dim=2)
        return Tap(site, lambda hidden, call: layer(hidden, padding, embedding[TIME_EMBEDDING], frames))

    return [record(TIME_EMBEDDING, embedding), *(at(site, layer) for site, layer in adapter.sites().items())]


@pytest.mark.parametrize("case", cases("unet_motion"), ids=lambda case: case.name)
@torch.inference_mode()
def test_sampling_with_motion(case: Case, port: Port) -> None:
    adapter = ADAPTERS[case.index["version"]]()
    seed_weights(adapter)
    call, frames = main_call(case), case.inputs["sample"][2]
    bank: Bank = {}
    port.run(reference_call(case), [record(site, bank) for site in adapter.sites()])
    reads = [
        Tap(site, lambda hidden, call, site=site, layer=layer: layer(hidden, bank[site], frames))
        for site, layer in adapter.sites().items()
    ]
    taps = animatediff_taps(frames) if case.index["version"] != "v5" else []
    taps += [*residuals(control_of(case, "control")), *reads, *motion_taps(case, port, frames)]
    with port.attach(taps, lambda *_: call):
        expect_frames(case, "with_reference_control_motion", run_unet(port, call))

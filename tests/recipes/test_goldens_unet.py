"""The small UNet with references and control attached agrees with the published code's, on every port."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from lib_hellomeme.networks.reference import KnittedReference, KnittedReferenceV5, ReferenceAdapter
from lib_hellomeme.recipes.hellomeme import Reenactment
from lib_hellomeme.taps.bank import Bank, record
from lib_hellomeme.taps.residual import add_residual
from lib_hellomeme.unet.port import DOWN, MID, UP, Call, Port, Tap
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

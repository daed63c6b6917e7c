"""Reference-only as diffusers' pipeline has it, and sd-webui-controlnet's units, on every port."""

from __future__ import annotations

import pytest
import torch

from lib_hellomeme.recipes.reference import ATTENTION_GATES, BLOCK_GATES, ReferenceUnits, Unit
from lib_hellomeme.sampling.banks import Noise
from lib_hellomeme.sampling.fidelity import row_shares
from lib_hellomeme.taps.attention import Look, read, record_tokens
from lib_hellomeme.taps.bank import Bank
from lib_hellomeme.unet.port import BLOCKS, SELF_ATTENTION, Call, Port, Rows
from tests.goldens_format import Case, cases, expect
from tests.tiny import PORTS, run_unet, uncond_cond


@pytest.fixture(scope="module", params=PORTS)
def port(request: pytest.FixtureRequest) -> Port:
    return PORTS[request.param]()


@pytest.mark.parametrize("case", cases("reference_only"), ids=lambda case: case.name)
@torch.inference_mode()
def test_reference_only(case: Case, port: Port) -> None:
    timestep = torch.full((2,), case.index["timestep"])
    sample, reference = (case.input(name).repeat(2, 1, 1, 1) for name in ("sample", "reference_noised"))
    call = Call(sample, timestep, case.input("context"), uncond_cond())
    bank: Bank = {}
    written = port.run(
        Call(reference, timestep, call.context, call.rows), [record_tokens(site, bank) for site in SELF_ATTENTION]
    )
    expect(case, "write", written)
    share = row_shares(call.rows, case.index["style_fidelity"])
    taps = [read(site, lambda _, site=site: [Look(bank[site], share)]) for site in SELF_ATTENTION]
    with port.attach(taps, lambda *_: call):
        expect(case, "read", run_unet(port, call))
    expect(case, "plain", run_unet(port, call))


def units_of(case: Case) -> tuple[list[Unit], list[Noise]]:
    def noise(name: str) -> Noise:
        return lambda call, row: case.input(name)[row : row + 1]

    units = [
        Unit(case.input(entry["reference"]), entry["module"], entry["weight"], entry["fidelity"], entry["mode"])
        for entry in case.index["units"]
    ]
    return units, [noise(entry["noise"]) for entry in case.index["units"]]


@pytest.mark.parametrize("case", cases("controlnet_reference"), ids=lambda case: case.name)
@torch.inference_mode()
def test_controlnet_reference(case: Case, port: Port) -> None:
    timestep = case.index["timestep"]
    alphas_cumprod = torch.full((1000,), case.index["alphas_cumprod"])
    rows = Rows(tuple(name == "uncond" for name in case.index["rows"]))
    call = Call(case.input("sample"), torch.full((len(rows),), timestep), case.input("context"), rows)
    units, noise = units_of(case)
    recipe = ReferenceUnits(port, units, alphas_cumprod, noise=noise)
    with port.attach(recipe.taps(), lambda *_: call, recipe.begin):
        expect(case, "read", run_unet(port, call))
    expect(case, "plain", run_unet(port, call))


# diffusers' names of the places that the goldens say are written
TRANSFORMERS = [f"{part}.transformer_blocks.0" for part in (
    *(f"down_blocks.{level}.attentions.{k}" for level in range(3) for k in range(2)),
    "mid_block.attentions.0",
    *(f"up_blocks.{level}.attentions.{k}" for level in (1, 2, 3) for k in range(3)),
)]  # fmt: skip
BLOCK_OUTPUTS = {12: "mid_block.resnets.1", 10: "down_blocks.3.resnets.0", 11: "down_blocks.3.resnets.1"} | {
    13: "up_blocks.0.resnets.0", 14: "up_blocks.0.resnets.1", 15: "up_blocks.0.upsamplers.0",
    16: "up_blocks.1.attentions.0",
}  # fmt: skip


@pytest.mark.parametrize("case", cases("controlnet_reference"), ids=lambda case: case.name)
def test_the_weight_opens_the_gates_that_the_goldens_name(case: Case) -> None:
    for unit, entry in zip(units_of(case)[0], case.index["units"], strict=True):
        attention = [TRANSFORMERS[SELF_ATTENTION.index(site)] for site in unit.sites if site in ATTENTION_GATES]
        blocks = [BLOCK_OUTPUTS[BLOCKS.index(site)] for site in unit.sites if site in BLOCK_GATES]
        assert attention == entry["written_attention"]
        assert sorted(blocks) == sorted(entry["written_adain"])
        assert unit.fidelity_in_effect == entry["style_fidelity_in_effect"]

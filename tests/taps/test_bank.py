from __future__ import annotations

import pytest
import torch

from lib_hellomeme.taps.adain import record_statistics
from lib_hellomeme.taps.attention import record_tokens
from lib_hellomeme.taps.bank import Bank, write
from lib_hellomeme.unet.port import BLOCKS, SELF_ATTENTION, AnyTap, Call, Port
from tests.tiny import PORTS, run_unet
from tests.unet.test_ports import a_call


@pytest.fixture(scope="module", params=PORTS)
def port(request: pytest.FixtureRequest) -> Port:
    return PORTS[request.param]()


def taps(bank: Bank) -> list[AnyTap]:
    attention = [record_tokens(site, bank) for site in SELF_ATTENTION[4:10]]
    return [*attention, *(record_statistics(site, bank) for site in (BLOCKS[12], BLOCKS[4]))]


@torch.inference_mode()
def test_a_write_pass_ends_with_the_last_thing_to_write(port: Port) -> None:
    call: Call = a_call()
    plain, whole, short = run_unet(port, call), Bank(), Bank()
    reached: list[str] = []
    port.run(call, taps(whole))
    handles = [
        module.register_forward_hook(lambda *_, name=name: reached.append(name))
        for name, module in port.unet.named_modules()  # type: ignore[attr-defined]
    ]
    try:
        write(port, call, short, taps(short))
    finally:
        for handle in handles:
            handle.remove()
    assert whole.keys() == short.keys()
    assert all(torch.equal(whole[site], short[site]) for site in whole)
    assert any("up_blocks.1.attentions.2.norm" in name or "output_blocks.5.1.norm" in name for name in reached)
    assert not any("up_blocks.2" in name or "output_blocks.6" in name for name in reached)
    assert torch.equal(run_unet(port, call), plain)

"""A1111's port beside sd-webui-controlnet, told by the names its script has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_hellomeme.errors import HostError
from lib_hellomeme.unet.port import Call, Tap
from lib_hellomeme.webui import a1111
from lib_hellomeme.webui.a1111 import A1111Port
from tests.goldens_format import seeded
from tests.tiny import ldm_unet, run_unet, uncond_cond


def network(state: str = "Read", *kinds: str) -> Any:
    units = [SimpleNamespace(control_model_type=SimpleNamespace(name=kind)) for kind in kinds]
    machine = SimpleNamespace(name=state)
    return SimpleNamespace(attention_auto_machine=machine, gn_auto_machine=machine, control_params=units)


def processing(found: Any) -> Any:
    script = SimpleNamespace(title=lambda: "ControlNet", latest_network=found)
    other = SimpleNamespace(title=lambda: "Other")
    return SimpleNamespace(scripts=SimpleNamespace(alwayson_scripts=[other, script]))


def test_taps_are_silent_while_it_writes_its_references() -> None:
    """Its write pass runs within the UNet's call, through the modules that our hooks are on."""
    call = Call(
        seeded("beside/x", (2, 4, 16, 16)), torch.full((2,), 500), seeded("beside/c", (2, 7, 64)), uncond_cond()
    )
    script = processing(network("Write")).scripts.alwayson_scripts[1]
    port, wrote = A1111Port(ldm_unet(), script), []
    own = port.unet.forward

    def forward(x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        script.latest_network = network("Write")
        wrote.append(own(x, timesteps, context=context))
        script.latest_network = network("Read")
        return own(x, timesteps, context=context)

    with torch.inference_mode():
        plain = run_unet(port, call)
        with port.attach([Tap("mid", lambda hidden, call: 2 * hidden)], lambda *_: call):
            port.unet.forward = forward
            changed = run_unet(port, call)
            del port.unet.forward
    assert torch.equal(wrote[0], plain)
    assert not torch.equal(changed, plain)


@pytest.mark.parametrize("found", [None, network("Read"), network("Read", "ControlNet", "T2I_Adapter")])
def test_its_control_units_and_ours_go_together(found: Any) -> None:
    a1111.refuse_references(processing(found))


def test_its_reference_units_and_ours_do_not() -> None:
    with pytest.raises(HostError, match="not both"):
        a1111.refuse_references(processing(network("Read", "ControlNet", "AttentionInjection")))


def test_it_need_not_be_there() -> None:
    p: Any = SimpleNamespace(scripts=SimpleNamespace(alwayson_scripts=[]))
    a1111.refuse_references(p)
    assert a1111.controlnet(p) is None

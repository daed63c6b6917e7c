"""UNets whose weights are stored in 8-bit floats, and computed with in another type, as the hosts do it."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lib_hellomeme.checkpoints.load import placed
from lib_hellomeme.face.track import FaceFrame
from lib_hellomeme.recipes.hellomeme import Reenactment
from lib_hellomeme.recipes.reenact import controls, load_networks
from lib_hellomeme.unet.diffusers import DiffusersPort
from lib_hellomeme.unet.ldm import LdmPort
from lib_hellomeme.unet.port import Call, Port
from tests import tiny
from tests.goldens_format import seeded
from tests.random_weights import write_networks
from tests.tiny import CONTEXT_WIDTH, WIDTHS, diffusers_unet, forge_port, ldm_unet, run_unet, uncond_cond

STORED = torch.float8_e4m3fn
GENERATIONS = ("v1", "v3", "v5", "v5c")
FACE = FaceFrame(Fraction(0), 192, 128, True, np.full(3, 0.2), np.array([0.0, 0.0, -10.0]), np.full(51, 0.3))


@dataclass(frozen=True)
class Host:
    """A port on a UNet that stores 8-bit floats, one with the same weights that computes in float32, the type that goes
    in and what is around its calls."""

    port: Port
    exact: Port
    given: torch.dtype
    around: Callable[[], AbstractContextManager] = nullcontext


@contextmanager
def manual_cast(computed: torch.dtype, returned: torch.dtype) -> Iterator[None]:
    """A1111's `devices.manual_cast`: for its forward every such module takes on `computed`, and hands on `returned`."""
    kinds = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm)
    originals = [kind.forward for kind in kinds]

    def casting(original: Callable) -> Callable:
        def forward(self: nn.Module, features: Tensor) -> Tensor:
            stored = next((each.dtype for each in self.parameters() if each.dtype != computed), computed)
            self.to(computed)
            result = original(self, features.to(computed)).to(returned)
            self.to(stored)
            return result

        return forward

    for kind, original in zip(kinds, originals, strict=True):
        kind.forward = casting(original)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for kind, original in zip(kinds, originals, strict=True):
            kind.forward = original  # type: ignore[method-assign]


def a1111(norms: torch.dtype, around: Callable[[], AbstractContextManager]) -> Host:
    """As A1111's option "FP8 weight" leaves it: convolutions and linear layers in 8 bits, the rest as it was."""
    unet = copy.deepcopy(ldm_unet()).to(norms)
    for module in unet.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(STORED)
    return Host(LdmPort(unet), LdmPort(copy.deepcopy(unet).float()), torch.float32, around)


def a1111_on_cpu() -> Host:
    return a1111(torch.float32, partial(torch.autocast, "cpu", dtype=torch.bfloat16))


def a1111_with_manual_cast() -> Host:
    return a1111(torch.float16, partial(manual_cast, torch.float16, torch.float32))


def diffusers_with_layerwise_casting() -> Host:
    unets: list[Any] = [copy.deepcopy(diffusers_unet()).requires_grad_(False) for _ in range(2)]
    for unet, computed in zip(unets, (torch.bfloat16, torch.float32), strict=True):
        unet.enable_layerwise_casting(storage_dtype=STORED, compute_dtype=computed)
    port, exact = map(DiffusersPort, unets)
    return Host(port, exact, torch.bfloat16)


def forge() -> Host:
    """As Forge's "Diffusion in Low Bits" leaves it: everything in 8 bits, cast when it is used."""
    checkout = os.environ["HELLOMEME_FORGE"]
    exact = forge_port(checkout)  # makes Forge's packages known
    from backend.operations import using_forge_operations

    stored = {name: value.to(STORED) for name, value in exact.unet.state_dict().items()}
    exact.unet.load_state_dict(stored)
    with (
        using_forge_operations(device=torch.device("cpu"), dtype=STORED, manual_cast_enabled=True),
        mock.patch.object(tiny, "load_from_diffusers", lambda unet: unet.load_state_dict(stored)),
    ):
        return Host(forge_port(checkout), exact, torch.float32)


HOSTS = [a1111_on_cpu, a1111_with_manual_cast, diffusers_with_layerwise_casting]
if "HELLOMEME_FORGE" in os.environ:
    HOSTS.append(forge)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for generation in GENERATIONS:
        write_networks(folder, WIDTHS, context_width=64, generation=generation)
    return folder


def reenactment(port: Port, generation: str, models: Path) -> Reenactment:
    networks = load_networks(generation, models)
    here = port.device, port.dtype
    target, own = controls(networks, [FACE, replace(FACE, rotation=np.zeros(3))], None, *here)
    layers = placed(networks.reference, *here).sites()
    write_control = own if generation == "v5c" else None
    return Reenactment(port, layers, seeded("reference", (1, 4, 16, 24)), target, write_control)


def drawn(port: Port, call: Call, generation: str, models: Path) -> Tensor:
    made = reenactment(port, generation, models)
    with port.attach(made.taps(), lambda *_: call, made.begin):
        return run_unet(port, call).float()


@pytest.mark.parametrize("make", HOSTS, ids=lambda make: make.__name__)
@torch.inference_mode()
def test_weights_stay_as_they_are_stored_and_the_networks_compute_wider(make: Callable[[], Host], models: Path) -> None:
    host = make()
    unet = host.port.unet  # type: ignore[attr-defined]
    assert host.port.dtype in (torch.float32, torch.float16, torch.bfloat16)
    stored = {name: value.clone() for name, value in unet.state_dict().items()}
    assert STORED in {value.dtype for value in stored.values()}
    sample, context = seeded("call/sample", (2, 4, 16, 24)), seeded("call/context", (2, 7, CONTEXT_WIDTH))
    call = Call(sample.to(host.given), torch.full((2,), 500), context.to(host.given), uncond_cond())
    with host.around():
        plain = run_unet(host.port, call).float()
    exact_call = replace(call, sample=sample, context=context)
    exact_plain = run_unet(host.exact, exact_call)
    for generation in GENERATIONS:
        with host.around():
            effect = drawn(host.port, call, generation, models) - plain
        expected = drawn(host.exact, exact_call, generation, models) - exact_plain
        assert (effect - expected).norm() / expected.norm() < 0.25, generation  # bfloat16 has 8 bits of its own
    with host.around():
        assert torch.equal(run_unet(host.port, call).float(), plain)
    after = unet.state_dict()
    assert {name: value.dtype for name, value in after.items()} == {name: each.dtype for name, each in stored.items()}
    assert all(torch.equal(after[name].float(), value.float()) for name, value in stored.items())

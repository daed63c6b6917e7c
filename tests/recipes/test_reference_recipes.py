"""MagicPose's, StableGarment's and Parts2Whole's attention against their formulas, written out as attention processors
of a diffusers UNet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib_hellomeme.recipes.magicpose import appearance_control
from lib_hellomeme.recipes.parts2whole import Part, parts_attention
from lib_hellomeme.recipes.stablegarment import additive_attention
from lib_hellomeme.sampling.banks import BankReader
from lib_hellomeme.unet.diffusers import DiffusersPort
from lib_hellomeme.unet.port import Call, Port, Rows
from tests.goldens_format import seeded
from tests.tiny import CONTEXT_WIDTH, PORTS, diffusers_unet, run_unet

UNCOND = (True, False)
TIMESTEP = 441


@pytest.fixture(scope="module", params=PORTS)
def port(request: pytest.FixtureRequest) -> Port:
    return PORTS[request.param]()


@pytest.fixture(scope="module")
def naive() -> nn.Module:
    return diffusers_unet()


@pytest.fixture(scope="module")
def other() -> nn.Module:
    """A UNet with appearance weights of its own."""
    unet = diffusers_unet()
    for name, tensor in unet.state_dict().items():
        tensor.add_(0.3 * seeded(f"appearance/{name}", tuple(tensor.shape)) * tensor.std(correction=0))
    return unet


@pytest.fixture(autouse=True)
def _without_gradients() -> object:
    with torch.inference_mode():
        yield


def latents(name: str) -> Tensor:
    return seeded(f"recipes/{name}", (1, 4, 16, 24))


def prompt(name: str, tokens: int = 5) -> Tensor:
    return seeded(f"recipes/prompt/{name}", (1, tokens, CONTEXT_WIDTH))


def the_call() -> Call:
    sample, context = (torch.cat([each("uncond"), each("cond")]) for each in (latents, prompt))
    return Call(sample, torch.full((2,), TIMESTEP), context, Rows(UNCOND))


def heads(attention: Any, tokens: Tensor) -> Tensor:
    return tokens.unflatten(-1, (attention.heads, -1)).transpose(1, 2)


def softmax_attention(attention: Any, x: Tensor, context: Tensor) -> Tensor:
    """to_out(softmax(Q Kᵀ / √d) V)"""
    q, k, v = (
        heads(attention, layer(tokens))
        for layer, tokens in ((attention.to_q, x), (attention.to_k, context), (attention.to_v, context))
    )
    probabilities = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    return attention.to_out[0]((probabilities @ v).transpose(1, 2).flatten(2))


@contextmanager
def processed(unet: Any, processor: Callable[[str, Any, Tensor], Tensor]) -> Iterator[None]:
    """Every self-attention of `unet` is computed by processor(name, attention, x)."""
    own = unet.attn_processors

    def of(name: str) -> Callable:
        def process(attention: nn.Module, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
            return processor(name, attention, hidden_states)

        return process

    unet.set_attn_processor({name: of(name) if "attn1" in name else processor for name, processor in own.items()})
    try:
        yield
    finally:
        unet.set_attn_processor(own)


def written(unet: nn.Module, sample: Tensor, timestep: int, context: Tensor) -> dict[str, Tensor]:
    bank = {}

    def write(name: str, attention: nn.Module, x: Tensor) -> Tensor:
        bank[name] = x
        return softmax_attention(attention, x, x)

    with processed(unet, write):
        unet(sample, timestep, context)
    return bank


def expected(unet: nn.Module, read: Callable[[str, nn.Module, Tensor], Tensor]) -> Tensor:
    call = the_call()
    with processed(unet, read):
        return unet(call.sample, TIMESTEP, call.context, return_dict=False)[0]


def got(port: Port, recipe: BankReader) -> Tensor:
    call = the_call()
    plain = run_unet(port, call)
    with port.attach(recipe.taps(), lambda *_: call, recipe.begin):
        output = run_unet(port, call)
    assert torch.equal(run_unet(port, call), plain)
    return output


def test_magicpose_concatenates_in_cond_rows(port: Port, naive: nn.Module, other: nn.Module) -> None:
    bank = written(other, latents("person"), TIMESTEP, prompt("cond"))

    def read(name: str, attention: nn.Module, x: Tensor) -> Tensor:
        uncond, cond = x[:1], x[1:]
        both = torch.cat([cond, bank[name]], dim=1)
        return torch.cat([softmax_attention(attention, uncond, uncond), softmax_attention(attention, cond, both)])

    output = got(port, appearance_control(DiffusersPort(other), latents("person")))
    torch.testing.assert_close(output, expected(naive, read), atol=2e-5, rtol=1e-4)


def test_magicpose_without_weights_of_its_own_writes_with_the_checkpoint_s(port: Port, naive: nn.Module) -> None:
    own = got(port, appearance_control(port, latents("person")))
    torch.testing.assert_close(own, got(port, appearance_control(DiffusersPort(naive), latents("person"))))


@pytest.mark.parametrize("fidelity", [0.0, 0.3, 1.0])
def test_stablegarment_adds(port: Port, naive: nn.Module, other: nn.Module, fidelity: float) -> None:
    bank = written(other, latents("garment"), TIMESTEP, prompt("a shirt"))
    weight = torch.tensor([1 - fidelity, 1.0]).reshape(2, 1, 1)

    def read(name: str, attention: nn.Module, x: Tensor) -> Tensor:
        garment = bank[name].expand(2, -1, -1)
        return softmax_attention(attention, x, x) + weight * softmax_attention(attention, x, garment)

    recipe = additive_attention(DiffusersPort(other), latents("garment"), prompt("a shirt"), fidelity)
    torch.testing.assert_close(got(port, recipe), expected(naive, read), atol=2e-5, rtol=1e-4)


def test_parts2whole_zeroes_outside_the_thickened_masks(port: Port, naive: nn.Module, other: nn.Module) -> None:
    parts = []
    for name, (top, left) in {"face": (0, 32), "clothes": (48, 0)}.items():
        mask = torch.zeros(1, 1, 128, 192)
        mask[..., top : top + 64, left : left + 96] = 1
        parts.append(Part(latents(name), mask, prompt(name)))
    banks = [written(other, part.latents, 0, part.prompt) for part in parts]

    def masked(tokens: Tensor, mask: Tensor) -> Tensor:
        scale = math.isqrt(16 * 24 // tokens.shape[1])
        small = F.interpolate(mask, (16 // scale, 24 // scale))
        thick = F.conv2d(small, torch.ones(1, 1, 3, 3), padding=1).clamp(0, 1)
        return tokens * thick.flatten()[None, :, None]

    def read(name: str, attention: nn.Module, x: Tensor) -> Tensor:
        uncond, cond = x[:1], x[1:]
        tokens = [masked(bank[name], part.mask) for bank, part in zip(banks, parts, strict=True)]
        every = torch.cat([cond, *tokens], dim=1)
        return torch.cat([softmax_attention(attention, uncond, uncond), softmax_attention(attention, cond, every)])

    output = got(port, parts_attention(DiffusersPort(other), parts))
    torch.testing.assert_close(output, expected(naive, read), atol=2e-5, rtol=1e-4)

"""A twin computes what a network of the same class with the file's weights computes, and nothing foreign."""

from __future__ import annotations

import gc
import weakref
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lib_hellomeme.checkpoints.twin import twin
from lib_hellomeme.errors import CheckpointError
from lib_hellomeme.unet.forge import ForgePort
from lib_hellomeme.unet.port import Call, Port
from tests.goldens_format import seeded
from tests.tiny import PORTS, uncond_cond

CPU = torch.device("cpu")


def of(port: Any, unet: nn.Module) -> Port:
    """A port of the same kind."""
    return ForgePort(port.patcher, unet) if isinstance(port, ForgePort) else type(port)(unet)


@pytest.mark.parametrize("kind", PORTS)
@torch.inference_mode()
def test_it_computes_what_its_weights_compute(kind: str) -> None:
    port: Any = PORTS[kind]()
    before = {name: tensor.clone() for name, tensor in port.unet.state_dict().items()}
    other = deepcopy(port.unet)
    for parameter in other.parameters():
        parameter.mul_(0.9)
    call = Call(seeded("sample", (2, 4, 16, 16)), torch.tensor([5, 5]), seeded("context", (2, 7, 64)), uncond_cond())
    double = twin(port.unet, other.state_dict(), CPU, torch.float32, "other.safetensors")
    assert type(double) is type(other)
    made, expected, own = (of(port, unet).run(call) for unet in (double, other, port.unet))
    assert torch.equal(made, expected)
    assert not torch.allclose(made, own, atol=1e-2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in port.unet.state_dict().items())


class Wrapped(nn.Module):
    """As the webuis put textual inversion around an embedding."""

    def __init__(self, wrapped: nn.Module) -> None:
        super().__init__()
        self.wrapped = wrapped

    def forward(self, x: Tensor) -> Tensor:
        return self.wrapped(x)


def network() -> nn.Sequential:
    shared = nn.Linear(3, 3)
    return nn.Sequential(Wrapped(nn.Linear(3, 3)), shared, shared, nn.BatchNorm1d(3))


def weights() -> dict[str, Tensor]:
    return {
        **{f"{name}.weight": seeded(name, (3, 3)) for name in "012"},
        **{f"{name}.bias": seeded(f"{name}/bias", (3,)) for name in "012"},
        "3.weight": seeded("3", (3,)),
        "3.bias": seeded("3/bias", (3,)),
    }


def test_what_others_hung_onto_modules_stays_behind() -> None:
    plain = network().eval()
    first: Any = plain[0].get_submodule("wrapped")
    first.network_layer_name = "lora_unet_first"
    first.note = "kept"
    first.forward = lambda x: 1 / 0
    plain[1].register_forward_hook(lambda *_: 1 / 0)
    double: Any = twin(plain, {name: tensor.half() for name, tensor in weights().items()}, CPU, torch.float32, "f")
    assert double(torch.ones(2, 3)).isfinite().all()
    assert not hasattr(double[0].wrapped, "network_layer_name")
    assert double[0].wrapped.note == "kept"
    assert double[1] is double[2]
    assert {parameter.dtype for parameter in double.parameters()} == {torch.float32}
    with pytest.raises(ZeroDivisionError):
        plain(torch.ones(2, 3))


@pytest.mark.parametrize(
    ("change", "words"),
    [({"1.weight": None}, "f has nothing where"), ({"1.weight": torch.ones(3, 4)}, r"f has \(3, 4\) where")],
)
def test_what_does_not_fit_is_one_line(change: dict[str, Tensor | None], words: str) -> None:
    tensors = {name: tensor for name, tensor in {**weights(), **change}.items() if tensor is not None}
    with pytest.raises(CheckpointError, match=words) as caught:
        twin(network(), tensors, CPU, torch.float32, "f")
    assert "\n" not in str(caught.value)


def test_it_is_let_go_at_once() -> None:
    double = twin(network(), weights(), CPU, torch.float32, "f")
    parts = [weakref.ref(part) for part in (double, *double.children())]
    gc.disable()
    try:
        del double
        assert [part() for part in parts] == [None] * len(parts)
    finally:
        gc.enable()

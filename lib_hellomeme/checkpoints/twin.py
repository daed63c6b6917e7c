"""Another file's weights in the structure of a network that somebody else runs, whatever its class."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from lib_hellomeme.errors import CheckpointError

TensorFor = Callable[[str, nn.Parameter], Tensor]


def twin(
    network: nn.Module, tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype, file: str
) -> nn.Module:
    """A network of the same structure with these tensors, which a file of this name holds, ready for inference.

    What programs hang onto modules stays behind: hooks, a `forward` of an instance's own, and A1111's LoRA. So do
    modules around a module, as the webuis' textual inversion has them, in the tensors' names: "a.wrapped.weight" is the
    tensor "a.weight". Raises CheckpointError where a tensor is missing or of another shape.
    """

    def tensor_for(name: str, parameter: nn.Parameter) -> Tensor:
        tensor = tensors.get(name.replace("wrapped.", ""))
        if tensor is None or tensor.shape != parameter.shape:
            found = "nothing" if tensor is None else tuple(tensor.shape)
            raise CheckpointError(
                f"{file} has {found} where the loaded checkpoint has {name} of shape {tuple(parameter.shape)}: choose "
                "another SD1.5 file, or switch off extensions that change the networks"
            )
        return tensor.to(device, dtype)

    return _copied(network, "", tensor_for, device, {}).eval()


def _copied(
    module: nn.Module, prefix: str, tensor_for: TensorFor, device: torch.device, copies: dict[int, nn.Module]
) -> nn.Module:
    """`copies` by the originals' ids: a module may have several names."""
    if id(module) not in copies:
        copy = copies[id(module)] = _without_contents(module)
        for name, parameter in module._parameters.items():
            tensor = None if parameter is None else tensor_for(prefix + name, parameter)
            copy.register_parameter(name, None if tensor is None else nn.Parameter(tensor, requires_grad=False))
        for name, buffer in module._buffers.items():
            copy.register_buffer(name, None if buffer is None else buffer.to(device))
        for name, child in module._modules.items():
            kept = None if child is None else _copied(child, f"{prefix}{name}.", tensor_for, device, copies)
            copy.add_module(name, kept)
    return copies[id(module)]


def _without_contents(module: nn.Module) -> nn.Module:
    """A module of the same class and attributes, without parameters, buffers, children and hooks."""
    copy = object.__new__(type(module))
    nn.Module.__init__(copy)
    blank = vars(copy)
    foreign = [name for name in vars(module) if name == "forward" or name.startswith("network_")]
    blank.update({name: value for name, value in vars(module).items() if name not in (*blank, *foreign)})
    return copy

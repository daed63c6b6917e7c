"""Another file's weights in the structure of a network that somebody else runs, whatever its class."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lib_hellomeme.errors import CheckpointError


def twin(
    network: nn.Module, tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype, file: str
) -> nn.Module:
    """A network of the same structure with these tensors, which a file of this name holds, ready for inference.

    What programs hang onto modules stays behind: hooks, a `forward` of an instance's own, and A1111's LoRA. So do
    modules around a module, as the webuis' textual inversion has them, in the tensors' names: "a.wrapped.weight" is the
    tensor "a.weight". Raises CheckpointError where a tensor is missing or of another shape.
    """
    copies: dict[int, nn.Module] = {}  # a module may have several names

    def copied(module: nn.Module, prefix: str) -> nn.Module:
        if id(module) not in copies:
            copy = copies[id(module)] = _without_contents(module)
            for name, parameter in module._parameters.items():
                given = parameter if parameter is None else tensor_for(prefix + name, parameter)
                copy.register_parameter(name, given)
            for name, buffer in module._buffers.items():
                copy.register_buffer(name, buffer if buffer is None else buffer.to(device))
            for name, child in module._modules.items():
                copy.add_module(name, child if child is None else copied(child, f"{prefix}{name}."))
        return copies[id(module)]

    def tensor_for(name: str, parameter: nn.Parameter) -> nn.Parameter:
        tensor = tensors.get(name.replace("wrapped.", ""))
        if tensor is None or tensor.shape != parameter.shape:
            found = "nothing" if tensor is None else tuple(tensor.shape)
            raise CheckpointError(
                f"{file} has {found} where the loaded checkpoint has {name} of shape {tuple(parameter.shape)}: choose "
                "another SD1.5 file, or switch off extensions that change the networks"
            )
        return nn.Parameter(tensor.to(device, dtype), requires_grad=False)

    return copied(network, "").eval()


def _without_contents(module: nn.Module) -> nn.Module:
    """A module of the same class and attributes, without parameters, buffers, children and hooks."""
    copy = object.__new__(type(module))
    nn.Module.__init__(copy)
    blank = vars(copy)
    foreign = [name for name in vars(module) if name == "forward" or name.startswith("network_")]
    blank.update({name: value for name, value in vars(module).items() if name not in (*blank, *foreign)})
    return copy

"""A port by torch hooks, for UNets whose blocks are called as modules.

Hooks and not assigned `forward`s: other extensions save and restore `forward`, and would restore ours after we left or
drop it while we are there. Hooks of submodules also survive an extension that replaces the whole UNet's `forward`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lib_hellomeme.unet.port import Begin, Call, Describe, Port, Tap

Current = Callable[[], Call | None]


class HookPort(Port):
    """What the ports for LDM and diffusers share. Subclasses say where the sites are."""

    argument_names: Sequence[str]

    def __init__(self, unet: nn.Module) -> None:
        self.unet = unet

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @abstractmethod
    def _hook(self, tap: Tap, current: Current) -> RemovableHandle:
        """Register `tap` at its site; it runs only in calls for which `current()` is not None."""

    @abstractmethod
    def _forward(self, call: Call) -> Tensor:
        """The UNet's own forward, without the hooks and assigned `forward`s of its outermost module."""

    @contextmanager
    def attach(self, taps: Sequence[Tap], describe: Describe, begin: Begin | None = None) -> Iterator[None]:
        with watch(self.unet, self.argument_names, describe, begin) as current, self._hooks(taps, current):
            yield

    def run(self, call: Call, taps: Sequence[Tap] = ()) -> Tensor:
        with self._hooks(taps, lambda: call):
            return self._forward(call)

    @contextmanager
    def _hooks(self, taps: Sequence[Tap], current: Current) -> Iterator[None]:
        with ExitStack() as stack:
            for tap in sorted(taps, key=lambda tap: not tap.skip):  # stable: the given order is kept among equals
                stack.callback(self._hook(tap, current).remove)
            yield


@contextmanager
def watch(unet: nn.Module, argument_names: Sequence[str], describe: Describe, begin: Begin | None) -> Iterator[Current]:
    """Yield a function that gives the described call that `unet` is in, or None between calls.

    `argument_names`: what this UNet calls its sample, timestep, context and options.
    """
    running: Call | None = None

    def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
        nonlocal running
        running = None  # bare passes that `begin` runs meet silent taps
        given = dict(zip(argument_names, args, strict=False)) | kwargs
        sample, timestep, context = (given[name] for name in argument_names[:3])
        timestep = torch.as_tensor(timestep, device=sample.device).expand(sample.shape[0])
        call = describe(sample, timestep, context, given.get(argument_names[3], {}))
        if call is not None and begin is not None:
            begin(call)
        running = call

    def after(module: nn.Module, args: tuple, output: object) -> None:
        nonlocal running
        running = None

    with ExitStack() as stack:
        stack.callback(unet.register_forward_pre_hook(before, with_kwargs=True).remove)
        stack.callback(unet.register_forward_hook(after, always_call=True).remove)
        yield lambda: running


def tapped(tap: Tap, hidden: Tensor, call: Call | None) -> Tensor:
    """`hidden` after `tap`, or `hidden` itself outside a described call."""
    return hidden if call is None else tap.function(hidden, call)

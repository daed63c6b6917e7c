"""A port by torch hooks, for UNets whose blocks are called as modules.

Hooks and not assigned `forward`s: other extensions save and restore `forward`, and would restore ours after we left or
drop it while we are there. Hooks of submodules also survive an extension that replaces the whole UNet's `forward`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lib_hellomeme.unet.port import (
    CROSS_ATTENTION,
    SELF_ATTENTION,
    AnyTap,
    Attended,
    AttentionTap,
    Begin,
    Call,
    Describe,
    Port,
    Tap,
    in_order,
)

Current = Callable[[], Call | None]


class HookPort(Port):
    """What the ports for LDM and diffusers share. Subclasses say where the sites are."""

    argument_names: Sequence[str]
    context_name: str  # what an attention layer calls the tokens it attends to

    def __init__(self, unet: nn.Module, stages: Iterable[nn.Module]) -> None:
        """`stages`: parts of the UNet in the order in which they run, together holding all transformer blocks."""
        self.unet = unet
        self.attention = attention_layers(stages)

    @property
    def dtype(self) -> torch.dtype:
        # 8-bit floats only store weights. Where a host stores some so, its norms have the type in which it computes.
        types = (parameter.dtype for parameter in self.unet.parameters() if parameter.element_size() > 1)
        return next((dtype for dtype in types if dtype.is_floating_point), torch.float32)

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @abstractmethod
    def _hook(self, tap: Tap, current: Current) -> RemovableHandle:
        """Register `tap` at its site; it runs only in calls for which `current()` is not None."""

    @abstractmethod
    def _forward(self, call: Call) -> Tensor:
        """The UNet's own forward, without the hooks and assigned `forward`s of its outermost module."""

    def in_foreign_pass(self) -> bool:
        """Whether somebody else runs a bare pass within the present call, in which attached taps are to be silent."""
        return False

    @contextmanager
    def attach(self, taps: Sequence[AnyTap], describe: Describe, begin: Begin | None = None) -> Iterator[None]:
        with ExitStack() as stack:
            running = stack.enter_context(watch(self.unet, self.argument_names, describe, begin))
            stack.enter_context(self._hooks(taps, lambda: None if self.in_foreign_pass() else running()))
            yield

    def run(self, call: Call, taps: Sequence[AnyTap] = ()) -> Tensor:
        with bare_pass(self.unet), self._hooks(taps, lambda: call):
            return self._forward(call)

    @contextmanager
    def _hooks(self, taps: Sequence[AnyTap], current: Current) -> Iterator[None]:
        with ExitStack() as stack:
            for tap in in_order([tap for tap in taps if isinstance(tap, Tap)]):
                stack.callback(self._hook(tap, current).remove)
            for site, here in by_site(taps).items():
                for handle in _hook_attention(self.attention[site], here, current, self.context_name):
                    stack.callback(handle.remove)
            yield


def attention_layers(stages: Iterable[nn.Module]) -> dict[str, nn.Module]:
    """The attention layers by site, of parts of a UNet given in the order in which they run."""
    blocks = [module for stage in stages for module in stage.modules() if hasattr(module, "attn1")]
    return dict(zip(SELF_ATTENTION, (block.attn1 for block in blocks), strict=False)) | dict(
        zip(CROSS_ATTENTION, (block.attn2 for block in blocks), strict=False)
    )


def by_site(taps: Sequence[AnyTap]) -> dict[str, list[AttentionTap]]:
    """The attention taps at each site, in the order in which they were given."""
    sites: dict[str, list[AttentionTap]] = {}
    for tap in taps:
        if isinstance(tap, AttentionTap):
            sites.setdefault(tap.site, []).append(tap)
    return sites


def contexts_of(taps: Sequence[AttentionTap], x: Tensor, context: Tensor, call: Call) -> list[Tensor]:
    """What the layer attends to without taps, with the first, with the first two, ... with all."""
    contexts = [context]
    for tap in taps:
        contexts.append(tap.context(x, contexts[-1], call))
    return contexts


def output_of(
    taps: Sequence[AttentionTap],
    layer: nn.Module,
    x: Tensor,
    contexts: Sequence[Tensor],
    output: Tensor,
    call: Call,
) -> Tensor:
    """What the taps, last first, make of the layer's output for the last of `contexts`."""
    for tap, context in zip(reversed(taps), reversed(contexts[:-1]), strict=True):
        if tap.output is not None:
            output = tap.output(Attended(x, context, output, evaluation(layer)), call)
    return output


def evaluation(layer: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """The computation of an attention layer, as the webui's optimised attention has it, which replaces the class's
    forward. An instance's own forward is passed by: Hypertile's cuts x into tiles but not the context."""
    return lambda x, context: type(layer).forward(layer, x, context)


def _hook_attention(
    layer: nn.Module, taps: Sequence[AttentionTap], current: Current, context_name: str
) -> Sequence[RemovableHandle]:
    asked: list[tuple[Call, Tensor, list[Tensor]]] = []  # of the evaluation under way, if it is to be tapped

    def before(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        asked.clear()
        call = current()
        if call is None:
            return None
        x, *rest = args
        given = rest[0] if rest else kwargs.get(context_name)
        contexts = contexts_of(taps, x, x if given is None else given, call)
        asked.append((call, x, contexts))
        if contexts[-1] is contexts[0] or "forward" in vars(module):
            return None
        return ((x, contexts[-1], *rest[1:]), kwargs) if rest else (args, kwargs | {context_name: contexts[-1]})

    def after(module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        if not asked:
            return None
        call, x, contexts = asked.pop()
        if contexts[-1] is not contexts[0] and "forward" in vars(module):
            output = evaluation(module)(x, contexts[-1])
        return output_of(taps, module, x, contexts, output, call)

    return layer.register_forward_pre_hook(before, with_kwargs=True), layer.register_forward_hook(after)


@contextmanager
def watch(unet: nn.Module, argument_names: Sequence[str], describe: Describe, begin: Begin | None) -> Iterator[Current]:
    """Yield a function that gives the described call that `unet` is in, or None between calls and in bare passes.

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
        yield lambda: None if unet in _in_bare_pass else running


_in_bare_pass: list[nn.Module] = []  # UNets; every `watch` of one must know, not only that of the pass's own port


@contextmanager
def bare_pass(unet: nn.Module) -> Iterator[None]:
    """Silence whatever is attached to `unet`, by whichever port."""
    _in_bare_pass.append(unet)
    try:
        yield
    finally:
        _in_bare_pass.remove(unet)


def tapped(tap: Tap, hidden: Tensor, call: Call | None) -> Tensor:
    """`hidden` after `tap`, or `hidden` itself outside a described call."""
    return hidden if call is None else tap.function(hidden, call)

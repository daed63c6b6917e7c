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
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from lib_hellomeme.unet.port import (
    CROSS_ATTENTION,
    SELF_ATTENTION,
    AnyTap,
    Attend,
    Attended,
    AttentionTap,
    Begin,
    Call,
    Describe,
    Parts,
    Port,
    Selection,
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

    def fused(self) -> bool:
        """Whether attention in bare passes and attention that taps lengthen is computed by `FusedAttention` instead of
        the layer's own forward."""
        return False

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
        with bare_pass(self.unet), self._hooks(taps, lambda: call, bare=True):
            return self._forward(call)

    @contextmanager
    def _hooks(self, taps: Sequence[AnyTap], current: Current, bare: bool = False) -> Iterator[None]:
        always = bare and self.fused()
        sites = dict.fromkeys(self.attention, ()) if always else {}
        with ExitStack() as stack:
            for tap in in_order([tap for tap in taps if isinstance(tap, Tap)]):
                stack.callback(self._hook(tap, current).remove)
            for site, here in (sites | by_site(taps)).items():
                for handle in self._hook_attention(self.attention[site], here, current, always):
                    stack.callback(handle.remove)
            yield

    def _hook_attention(
        self, layer: nn.Module, taps: Sequence[AttentionTap], current: Current, always: bool
    ) -> Sequence[RemovableHandle]:
        """`always`: fused attention whether taps lengthen it or not."""
        asked: list[tuple[Call, Tensor, list[Parts]]] = []  # of the evaluation under way, if it is to be tapped
        name = self.context_name

        def replaced(parts: Sequence[Parts]) -> bool:
            return always or parts[-1] is not parts[0]

        def before(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            asked.clear()
            call = current()
            if call is None:
                return None
            x, *rest = args
            context = rest[0] if rest else kwargs.get(name)
            parts = parts_of(taps, x, (x if context is None else context,), call)
            asked.append((call, x, parts))
            if not replaced(parts) or "forward" in vars(module):
                return None
            if self.fused():  # one token is the least that the layer's own forward can be given to do
                x, context = x[:, :1], parts[0][0][:, :1]
            else:
                context = together(parts[-1], len(x))
            return ((x, context, *rest[1:]), kwargs) if rest else ((x,), kwargs | {name: context})

        def after(module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
            if not asked:
                return None
            call, x, parts = asked.pop()
            attend = FusedAttention(module, x) if self.fused() else own_attention(module, x)
            if replaced(parts) and (self.fused() or "forward" in vars(module)):
                output = attend(parts[-1])
            return output_of(taps, attend, x, parts, output, call)

        return layer.register_forward_pre_hook(before, with_kwargs=True), layer.register_forward_hook(after)


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


def parts_of(taps: Sequence[AttentionTap], x: Tensor, parts: Parts, call: Call) -> list[Parts]:
    """What the layer attends to without taps, with the first, with the first two, ... with all."""
    made = [parts]
    for tap in taps:
        made.append(tap.context(x, made[-1], call))
    return made


def output_of(
    taps: Sequence[AttentionTap], attend: Attend, x: Tensor, made: Sequence[Parts], output: Tensor, call: Call
) -> Tensor:
    """What the taps, last first, make of the layer's output for the last of the parts that they made."""
    for tap, parts in zip(reversed(taps), reversed(made[:-1]), strict=True):
        if tap.output is not None:
            output = tap.output(Attended(x, parts, output, attend), call)
    return output


def together(parts: Parts, rows: int, chosen: Selection = slice(None)) -> Tensor:
    """The parts as one context of so many rows, or of the chosen ones of them."""
    expanded = [part.expand(rows, -1, -1)[chosen] for part in parts]
    return torch.cat(expanded, dim=1) if len(expanded) > 1 else expanded[0]


def own_attention(layer: nn.Module, x: Tensor) -> Attend:
    """The computation of an attention layer, as the webui's optimised attention has it, which replaces the class's
    forward. An instance's own forward is passed by: Hypertile's cuts x into tiles but not the context."""
    return lambda parts, rows=slice(None): type(layer).forward(layer, x[rows], together(parts, len(x), rows))


class FusedAttention:
    """The computation of one of LDM's attention layers on x, by PyTorch's fused attention. What several evaluations, or
    several rows, share is projected once; LoRAs act, since the layer's own projections do."""

    def __init__(self, layer: nn.Module, x: Tensor) -> None:
        self.layer = layer
        self.x = x
        self._projected: dict[tuple[nn.Module, int], tuple[Tensor, Tensor]] = {}

    def __call__(self, parts: Parts, rows: Selection = slice(None), /) -> Tensor:
        layer, count = self.layer, len(self.x)
        keys, values = (
            together(tuple(self._project(projection, part) for part in parts), count, rows)
            for projection in (layer.to_k, layer.to_v)
        )
        q, k, v = (
            projected.unflatten(-1, (layer.heads, -1)).transpose(1, 2)
            for projected in (self._project(layer.to_q, self.x)[rows], keys, values)
        )
        return layer.to_out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def _project(self, projection: nn.Module, tokens: Tensor) -> Tensor:
        key = (projection, id(tokens))
        if key not in self._projected:
            self._projected[key] = tokens, projection(tokens)  # the tokens are kept so that their id stays theirs
        return self._projected[key][1]


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

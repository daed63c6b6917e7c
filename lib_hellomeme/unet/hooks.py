"""A port by torch hooks, for UNets whose blocks are called as modules.

Hooks and not assigned `forward`s: other extensions save and restore `forward`, and would restore ours after we left or
drop it while we are there. Hooks of submodules also survive an extension that replaces the whole UNet's `forward`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

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
    LeftAloneError,
    Parts,
    Port,
    Selection,
    Tap,
    in_order,
)

Current = Callable[[], Call | None]
MOST_PLACES = 4 * 64 * 64  # of latents, in a call that rows may ride in: larger ones gain nothing and need the memory
OURS = __name__.partition(".")[0]


class HookPort(Port):
    """What the ports for LDM and diffusers share. Subclasses say where the sites are."""

    argument_names: Sequence[str]
    context_name: str  # what an attention layer calls the tokens it attends to

    def __init__(self, unet: nn.Module, stages: Iterable[nn.Module]) -> None:
        """`stages`: parts of the UNet in the order in which they run, together holding all transformer blocks."""
        self.unet: Any = unet  # a host's class, known by its attributes
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

    def room(self, call: Call) -> int:
        """How many rows may ride behind this call's."""
        places = len(call.sample) * call.sample.shape[-2] * call.sample.shape[-1]
        return max(0, MOST_PLACES - places) * len(call.sample) // places if is_undisturbed(self.unet) else 0

    @contextmanager
    def attach(self, taps: Sequence[AnyTap], describe: Describe, begin: Begin | None = None) -> Iterator[None]:
        def heard(of: Current) -> Current:
            return lambda: None if self.in_foreign_pass() else of()

        with ExitStack() as stack:
            watched = stack.enter_context(watch(self.unet, self.argument_names, describe, begin, self.room))
            stack.enter_context(self._hooks(taps, heard(watched.own), heard(watched.riding)))
            yield

    def run(self, call: Call, taps: Sequence[AnyTap] = ()) -> Tensor:
        with bare_pass(self.unet), self._hooks(taps, lambda: call, lambda: None, bare=True):
            return self._forward(call)

    @contextmanager
    def _hooks(self, taps: Sequence[AnyTap], own: Current, riding: Current, bare: bool = False) -> Iterator[None]:
        always = bare and self.fused()
        sites = dict.fromkeys(self.attention, ()) if always else {}
        with ExitStack() as stack:
            for tap in in_order([tap for tap in taps if isinstance(tap, Tap)]):
                stack.callback(self._hook(tap, riding if tap.riding else own).remove)
            for site, here in (sites | by_site(taps)).items():
                use = _Use(tuple(here), own, riding, always, self.fused)
                stack.enter_context(_used(self.attention[site], use, self.context_name))
            yield


def attention_layers(stages: Iterable[nn.Module]) -> dict[str, nn.Module]:
    """The attention layers by site, of parts of a UNet given in the order in which they run."""
    blocks: list[Any] = [module for stage in stages for module in stage.modules() if hasattr(module, "attn1")]
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


class _Use(NamedTuple):
    """What one attachment, or one bare pass, wants of an attention layer."""

    taps: tuple[AttentionTap, ...]
    own: Current
    riding: Current
    always: bool  # fused attention whether taps lengthen it or not
    fused: Callable[[], bool]


class _Asked(NamedTuple):
    """An attention layer's evaluation that is to be tapped."""

    taps: list[Asking]
    mine: Tensor  # the call's rows of x
    made: list[Parts]
    attend: Attend
    done: bool  # whether the layer's own forward evaluates them as is wanted
    others: slice  # the rows of its output that are not the call's


class _AttentionHooks:
    """The one pair of hooks on an attention layer, whoever uses it: taps of several attachments nest as those of one
    do."""

    def __init__(self, layer: nn.Module, context_name: str) -> None:
        self.uses: list[_Use] = []
        self.context_name = context_name
        self._asked: list[_Asked] = []  # the evaluation under way
        self.handles = (
            layer.register_forward_pre_hook(self.before, with_kwargs=True),
            layer.register_forward_hook(self.after),
        )

    def before(self, layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        self._asked.clear()
        x, *rest = args
        context = rest[0] if rest else kwargs.get(self.context_name)
        context = x if context is None else context
        for use in self.uses:
            if (rides := use.riding()) is not None:
                for tap in use.taps:
                    if tap.riding:
                        tap.context(x[rides.places], (context[rides.places],), rides)
        active = [(use, call) for use in self.uses if (call := use.own()) is not None]
        if not active:
            return None
        fused, rows = active[0][0].fused(), active[0][1].places  # all of them are in the same call
        taps = [(tap, call) for use, call in active for tap in use.taps if not tap.riding]
        mine = x[rows] if len(x) > rows.stop else x
        made = parts_of(taps, mine, (mine if context is x else context[rows],))
        attend = FusedAttention(layer, mine) if fused else own_attention(layer, mine)
        others = slice(rows.stop, None)

        def ask(done: bool, others: slice) -> None:
            self._asked.append(_Asked(taps, mine, made, attend, done, others))

        untouched = made[-1] is made[0] and not any(use.always for use, _ in active)
        if untouched or has_foreign_forward(layer):
            ask(untouched, others)
            return None
        if len(x) > len(mine):  # the layer's own forward does what rides, and no more
            ask(False, slice(None))
            given = x[others], context[others]
        elif fused:  # one token is the least that it can be given to do
            ask(False, others)
            given = x[:, :1], context[:, :1]
        else:
            ask(True, others)
            given = x, together(made[-1], len(x))
        return ((*given, *rest[1:]), kwargs) if rest else (given[:1], kwargs | {self.context_name: given[1]})

    def after(self, layer: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        if not self._asked:
            return None
        taps, mine, made, attend, done, places = self._asked.pop()
        others = output[places]
        own_output = output[: len(mine)] if len(others) else output
        changed = output_of(taps, attend, mine, made, own_output if done else attend(made[-1]))
        if changed is own_output:
            return None
        return torch.cat([changed, others]) if len(others) else changed


_attention_hooks: dict[nn.Module, _AttentionHooks] = {}


@contextmanager
def _used(layer: nn.Module, use: _Use, context_name: str) -> Iterator[None]:
    """Let an attention layer be used so."""
    hooks = _attention_hooks.get(layer)
    if hooks is None:
        hooks = _attention_hooks[layer] = _AttentionHooks(layer, context_name)
    hooks.uses.append(use)
    try:
        yield
    finally:
        hooks.uses.remove(use)
        if not hooks.uses:
            del _attention_hooks[layer]
            for handle in hooks.handles:
                handle.remove()


Asking = tuple[AttentionTap, Call]


def parts_of(taps: Sequence[Asking], x: Tensor, parts: Parts) -> list[Parts]:
    """What the layer attends to without taps, with the first, with the first two, ... with all."""
    made = [parts]
    for tap, call in taps:
        made.append(tap.context(x, made[-1], call))
    return made


def output_of(taps: Sequence[Asking], attend: Attend, x: Tensor, made: Sequence[Parts], output: Tensor) -> Tensor:
    """What the taps, last first, make of the layer's output for the last of the parts that they made."""
    for (tap, call), parts in zip(reversed(taps), reversed(made[:-1]), strict=True):
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

    def __init__(self, layer: Any, x: Tensor) -> None:
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


class Watched(NamedTuple):
    """What a UNet is computing at the moment; both are None between calls and in bare passes."""

    own: Current  # the described call
    riding: Current  # what rides behind it


@contextmanager
def watch(
    unet: nn.Module,
    argument_names: Sequence[str],
    describe: Describe,
    begin: Begin | None,
    room: Callable[[Call], int] = lambda call: 0,
) -> Iterator[Watched]:
    """Follow the calls of `unet`.

    `argument_names`: what this UNet calls its sample, timestep, context and options. `room`: how many rows may ride
    behind a call.
    """
    own: Call | None = None
    riding: Call | None = None

    def before(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        nonlocal own, riding
        own = riding = None  # bare passes that `begin` runs meet silent taps
        given = dict(zip(argument_names, args, strict=False)) | kwargs
        sample, timestep, context = (given[name] for name in argument_names[:3])
        timestep = torch.as_tensor(timestep, device=sample.device).expand(sample.shape[0])
        host = slice(_host_rows.get(unet))  # without what rides already
        call = describe(sample[host], timestep[host], context[host], given.get(argument_names[3], {}))
        if call is not None and begin is not None:
            others = [value for name, value in given.items() if name not in argument_names[:3]]
            simple = len(args) <= 3 and all(value is None or isinstance(value, bool) for value in others)
            whole = call.context.shape == context.shape  # not without a mark that somebody has put before the prompts
            room_here = partial(room, call) if simple and whole and unet not in _host_rows else call.room
            try:
                riding = begin(replace(call, room=room_here))
            except LeftAloneError:
                call = None
        own = call
        if own is None or riding is None:
            return None
        riding = replace(riding, first=len(sample))
        _host_rows[unet] = len(sample)
        joined = (torch.cat([sample, riding.sample]), torch.cat([timestep, riding.timestep.to(timestep)]))
        return (), given | dict(zip(argument_names, (*joined, torch.cat([context, riding.context])), strict=False))

    def after(module: nn.Module, args: tuple, output: Any) -> Any:
        nonlocal own, riding
        rode, own, riding = riding, None, None
        if rode is None:
            return None
        del _host_rows[unet]
        return None if output is None else _without_riders(output, rode.first)

    with ExitStack() as stack:
        stack.callback(after, unet, (), None)  # an interrupt passes hooks by
        stack.callback(unet.register_forward_pre_hook(before, with_kwargs=True).remove)
        stack.callback(unet.register_forward_hook(after, always_call=True).remove)
        yield Watched(lambda: None if unet in _in_bare_pass else own, lambda: None if unet in _in_bare_pass else riding)


_host_rows: dict[nn.Module, int] = {}  # of UNets in whose present call something rides; every `watch` must know


def _without_riders(output: Any, rows: int) -> Any:
    """The first rows of what a UNet returns: a tensor, a tuple with one, or diffusers' mapping with one."""
    if isinstance(output, Tensor):
        return output[:rows]
    if isinstance(output, tuple):
        return (output[0][:rows], *output[1:])
    return type(output)(output[0][:rows])


def has_foreign_forward(module: nn.Module) -> bool:
    """Whether somebody has given this one module another forward. Its class's own may lie there, too: who restores it
    by assignment leaves that behind."""
    own = vars(module).get("forward")
    return own is not None and getattr(own, "__func__", None) is not type(module).forward


def is_undisturbed(unet: nn.Module) -> bool:
    """Whether all that runs in `unet` is its own code, torch's and ours: what others put there may count rows."""
    known = {"torch", type(unet).__module__.partition(".")[0]}
    for module in unet.modules():
        if has_foreign_forward(module) or type(module).__module__.partition(".")[0] not in known:
            return False
        hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
        if any(not hook.__module__.startswith(OURS) for hook in hooks):
            return False
    return True


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
    """`hidden` after `tap` has had the call's rows, or `hidden` itself outside a described call."""
    if call is None:
        return hidden
    if len(hidden) == len(call.rows):
        return tap.function(hidden, call)
    mine = hidden[call.places]
    changed = tap.function(mine, call)
    if changed is mine:
        return hidden
    return torch.cat([hidden[: call.places.start], changed, hidden[call.places.stop :]])

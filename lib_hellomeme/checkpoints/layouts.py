"""Which tensors make which network. One entry a published layout; the network's widths are read off the tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import nn

from lib_hellomeme.networks.control import ControlBase, ControlProjection
from lib_hellomeme.networks.reference import PUBLISHED_WIDTHS, KnittedReference, KnittedReferenceV5, ReferenceAdapter

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Layout:
    """`name` is the first published file of this layout; `title` is what users read."""

    name: str
    title: str
    build: Callable[[Shapes], nn.Module]
    """Shapes of a file to a network of its widths; where a tensor is missing, of the published width."""

    @cached_property
    def tensor_names(self) -> frozenset[str]:
        return frozenset(build_on_meta(self, {}).state_dict())


def build_on_meta(layout: Layout, shapes: Shapes) -> nn.Module:
    """The network without memory for its tensors."""
    with torch.device("meta"):
        return layout.build(shapes)


def _size(shapes: Shapes, name: str, axis: int, published: int) -> int:
    shape = shapes.get(name, ())
    return shape[axis] if axis < len(shape) else published


def _widths(shapes: Shapes, sources: Sequence[str]) -> tuple[int, ...]:
    """The four level widths of the UNet, each read off the first axis of a tensor; "" where the file does not tell."""
    return tuple(_size(shapes, name, 0, width) for name, width in zip(sources, PUBLISHED_WIDTHS, strict=True))


def _up_adapter(shapes: Shapes, tensor: str, first_level: int = 0, **options: object) -> nn.Module:
    """A reference adapter of v2 and later."""
    sources = ["", *(f"reference_modules_up.{level - first_level}.{tensor}" for level in (3, 2, 1))]
    return ReferenceAdapter(_widths(shapes, sources), up_levels=range(first_level, 4), **options)  # type: ignore[arg-type]


def _v1_adapter(shapes: Shapes) -> nn.Module:
    widths = _widths(shapes, [f"reference_modules_down.{level}.norm.weight" for level in range(4)])
    return ReferenceAdapter(widths, layer=KnittedReference, up_levels=(1, 2, 3), encoder=True)


def _v5_adapter(shapes: Shapes) -> nn.Module:
    time_width = _size(shapes, "reference_modules_up.0.time_emb_proj.weight", 1, 1280)
    return _up_adapter(shapes, "norm.weight", layer=partial(KnittedReferenceV5, time_width=time_width))


def _control_base(shapes: Shapes, **options: object) -> nn.Module:
    widths = _widths(shapes, [*(f"ctrl_attn.attn_blocks.{level}.norm.weight" for level in range(3)), ""])
    context_width = _size(shapes, "exp_proj.linear_2.weight", 0, 2048)
    return ControlBase(widths, context_width, **options)  # type: ignore[arg-type]


def _control_projection(shapes: Shapes, tensor: str, **options: object) -> nn.Module:
    names = ("map320_to_320", "map640_to_640", "map1280_to_1280_2", "map1280_to_1280")
    return ControlProjection(_widths(shapes, [name + tensor for name in names]), **options)  # type: ignore[arg-type]


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("hm_reference", "HelloMeme v1 reference adapter", _v1_adapter),
        Layout(
            "hm2_reference",
            "HelloMeme v2 reference adapter",
            partial(_up_adapter, tensor="norm.weight", first_level=1, layer=KnittedReference),
        ),
        Layout(
            "hm3_reference",
            "HelloMeme v3/v4 reference adapter",
            partial(_up_adapter, tensor="norm.weight", layer=KnittedReference),
        ),
        Layout("hm5_reference", "HelloMeme v5 reference adapter", _v5_adapter),
        Layout(
            "hm5b_reference", "HelloMeme v5b/v5c reference adapter", partial(_up_adapter, tensor="attn.norm.weight")
        ),
        Layout("hm5_control_base", "HelloMeme v5 control network", _control_base),
        Layout(
            "hm5_control_proj",
            "HelloMeme v5/v5c control projection",
            partial(_control_projection, tensor=".proj.weight"),
        ),
    )
}

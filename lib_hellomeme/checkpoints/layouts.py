"""Which tensors make which network. One entry a published layout; the network's widths are read off the tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import nn

from lib_hellomeme.networks.animatediff import AnimateDiffAdapter
from lib_hellomeme.networks.clip_vision import ClipVision
from lib_hellomeme.networks.control import ControlBase, ControlProjection, ConvolutionProjector, STKCrossAttentionV4
from lib_hellomeme.networks.control_v3 import ControlV3, control_v1, control_v2
from lib_hellomeme.networks.expression import ExpressionKind
from lib_hellomeme.networks.motion import KnittedMotion, KnittedMotionV5, MotionAdapter
from lib_hellomeme.networks.pd_fgc import PdfgcEncoder
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


def _early_sizes(shapes: Shapes) -> dict[str, int]:
    """Sizes of v1's to v3's control networks beside the UNet's widths."""
    projection = "emo_proj" if "emo_proj.linear_2.weight" in shapes else "exp_proj"
    return {
        "context_width": _size(shapes, f"{projection}.linear_2.weight", 0, 320),
        "stem": _size(shapes, "conv_in.weight", 0, 128),
    }


def _control_v1(shapes: Shapes, kind: ExpressionKind) -> nn.Module:
    widths = _widths(shapes, [*(f"blocks_down.{level}.norm1.weight" for level in range(3)), ""])
    return control_v1(kind, widths, **_early_sizes(shapes))


def _up_control_widths(shapes: Shapes, first: str = "") -> tuple[int, ...]:
    return _widths(shapes, [first, *(f"blocks_down.{level}.norm1.weight" for level in range(3))])


def _control_v2(shapes: Shapes, kind: ExpressionKind) -> nn.Module:
    return control_v2(kind, _up_control_widths(shapes), **_early_sizes(shapes))


def _control_v3(shapes: Shapes) -> nn.Module:
    return ControlV3(_up_control_widths(shapes, "conv_up2_down0.weight"), **_early_sizes(shapes))


def _motion_v3(shapes: Shapes) -> nn.Module:
    widths = _widths(shapes, [f"motion_down.{level}.norm.weight" for level in range(4)])
    time_width = _size(shapes, "motion_down.0.time_emb_proj.weight", 1, 1280)
    return MotionAdapter(widths, layer=partial(KnittedMotion, time_width=time_width))


def _motion_v5(shapes: Shapes) -> nn.Module:
    widths = _widths(shapes, [f"motion_down.{level}.attn1.norm.weight" for level in range(4)])
    max_frames = _size(shapes, "motion_down.0.attn1.transformer_blocks.0.pos_embed.pe", 1, 32)
    return MotionAdapter(widths, layer=partial(KnittedMotionV5, max_frames=max_frames))


def _animatediff(shapes: Shapes, mid_block: bool) -> nn.Module:
    widths = _widths(shapes, [f"down_blocks.{level}.motion_modules.0.norm.weight" for level in range(4)])
    max_frames = _size(shapes, "down_blocks.0.motion_modules.0.transformer_blocks.0.pos_embed.pe", 1, 32)
    return AnimateDiffAdapter(widths, max_frames=max_frames, mid_block=mid_block)


def _clip_vision(shapes: Shapes) -> nn.Module:
    embeddings = "vision_model.embeddings"
    return ClipVision(
        width=_size(shapes, f"{embeddings}.class_embedding", 0, 1280),
        inner_width=_size(shapes, "vision_model.encoder.layers.0.mlp.fc1.weight", 0, 5120),
        patch=_size(shapes, f"{embeddings}.patch_embedding.weight", 2, 14),
        patches=_size(shapes, f"{embeddings}.position_embedding.weight", 0, 257) - 1,
        embedding_width=_size(shapes, "visual_projection.weight", 0, 1024),
    )


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
        Layout("hm_control", "HelloMeme v1 ARKit control network", partial(_control_v1, kind="arkit")),
        Layout("hm_control2", "HelloMeme v1 PD-FGC control network", partial(_control_v1, kind="pdfgc")),
        Layout("hm2_control", "HelloMeme v2 ARKit control network", partial(_control_v2, kind="arkit")),
        Layout("hm2_control2", "HelloMeme v2 PD-FGC control network", partial(_control_v2, kind="pdfgc")),
        Layout("hm3_control_mix", "HelloMeme v3 control network", _control_v3),
        Layout("hm_control_base", "HelloMeme v4 control network", partial(_control_base, block=STKCrossAttentionV4)),
        Layout(
            "hm4_control_proj",
            "HelloMeme v4 control projection",
            partial(_control_projection, tensor=".weight", projector=ConvolutionProjector),
        ),
        Layout("hm3_motion", "HelloMeme v3/v4 motion adapter", _motion_v3),
        Layout("hm5_motion", "HelloMeme v5 motion adapter", _motion_v5),
        Layout("animatediff", "AnimateDiff motion adapter", partial(_animatediff, mid_block=False)),
        Layout("animatediff_mid", "AnimateDiff v2 motion adapter", partial(_animatediff, mid_block=True)),
        Layout("pd_fgc_motion", "PD-FGC motion encoder", lambda shapes: PdfgcEncoder()),
        Layout("clip_vision", "CLIP vision tower", _clip_vision),
    )
}

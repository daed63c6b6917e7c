"""Networks without golden values, beside the classes they come from, on seeded narrow weights."""

from typing import Any

import pytest
import torch
from torch import nn

from lib_hellomeme.networks.animatediff import AnimateDiffAdapter, with_diffusers_names
from lib_hellomeme.networks.clip_vision import ClipVision
from tests.goldens_format import seed_weights, seeded

NARROW = (32, 64, 128, 128)


def assert_same_tensors(ours: nn.Module, theirs: nn.Module) -> None:
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == shapes


@pytest.mark.parametrize("mid_block", [False, True])
def test_animatediff_layers_are_diffusers(mid_block):
    from diffusers.models.unets.unet_motion_model import MotionAdapter

    theirs = MotionAdapter(NARROW, use_motion_mid_block=mid_block, motion_max_seq_length=24)
    seed_weights(theirs)
    ours = AnimateDiffAdapter(NARROW, max_frames=24, mid_block=mid_block)
    assert_same_tensors(ours, theirs)
    ours.load_state_dict(theirs.state_dict())

    layers = ours.layers()
    assert len(layers) == 4 * 2 + 4 * 3 + mid_block
    assert list(layers)[:3] == ["down.0.0", "down.0.1", "down.1.0"]
    frames = 5
    for name, layer in layers.items():
        level, *places = name.split(".")
        block: Any = theirs.mid_block if level == "mid" else getattr(theirs, f"{level}_blocks")[int(places[0])]
        channels = layer.norm.num_channels
        hidden = seeded(name, (2 * frames, channels, 4, 6))
        expected = block.motion_modules[int(places[-1])](hidden, num_frames=frames)
        torch.testing.assert_close(layer(hidden, frames), expected, atol=1e-5, rtol=1e-5)


ORIGINAL_OF = {
    "attn1": "attention_blocks.0",
    "attn2": "attention_blocks.1",
    "norm1": "norms.0",
    "norm2": "norms.1",
    "norm3": "ff_norm",
}


def original_names(name: str) -> list[str]:
    """A diffusers name in AnimateDiff's own naming; the positional table is stored once an attention."""
    head, _, tail = name.partition(".motion_modules.")
    index, _, tail = tail.partition(".")
    for ours, theirs in ORIGINAL_OF.items():
        tail = tail.replace(f".{ours}.", f".{theirs}.")
    names = [f"{head}.motion_modules.{index}.temporal_transformer.{tail}"]
    if tail.endswith("pos_embed.pe"):
        names = [names[0].replace("pos_embed.pe", f"attention_blocks.{i}.pos_encoder.pe") for i in (0, 1)]
    return names


@pytest.mark.parametrize("mid_block", [False, True])
def test_animatediffs_original_naming_is_the_same_network(mid_block):
    from diffusers.loaders.single_file_utils import convert_animatediff_checkpoint_to_diffusers

    adapter = AnimateDiffAdapter(NARROW, mid_block=mid_block)
    seed_weights(adapter)
    original = {name: tensor for ours, tensor in adapter.state_dict().items() for name in original_names(ours)}
    assert "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.norms.0.weight" in original

    renamed = with_diffusers_names(original)
    assert renamed.keys() == adapter.state_dict().keys()
    converted = convert_animatediff_checkpoint_to_diffusers(original)  # leaves the positional tables out
    assert {name for name in renamed if not name.endswith(".pe")} == converted.keys()
    assert all(renamed[name] is tensor for name, tensor in converted.items())


def test_clip_vision_is_transformers():
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=64,
        num_attention_heads=16,
        intermediate_size=128,
        num_hidden_layers=3,
        patch_size=14,
        image_size=224,
        projection_dim=48,
        hidden_act="gelu",
    )
    theirs = CLIPVisionModelWithProjection(config)
    seed_weights(theirs)
    ours = ClipVision(width=64, inner_width=128, layers=3, embedding_width=48)
    assert_same_tensors(ours, theirs)
    ours.load_state_dict(theirs.state_dict())
    pictures = seeded("pictures", (2, 3, 224, 224))
    torch.testing.assert_close(ours(pictures), theirs(pictures).image_embeds, atol=1e-5, rtol=1e-5)


def test_clip_visions_default_is_ip_adapters_encoder():
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(  # models/image_encoder/config.json of IP-Adapter: ViT-H/14
        hidden_size=1280,
        num_attention_heads=16,
        intermediate_size=5120,
        num_hidden_layers=32,
        patch_size=14,
        projection_dim=1024,
    )
    with torch.device("meta"):
        assert_same_tensors(ClipVision(), CLIPVisionModelWithProjection(config))

"""The single-file layout of SD1.5 checkpoints (CompVis' LDM), at any width: which tensors it has.

Names and shapes are those of CompVis/stable-diffusion's `v1-inference.yaml`. A narrow checkpoint has the same tensors
with fewer channels; GroupNorm's 32 groups want every width to be a multiple of 32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

UNET = "model.diffusion_model."
VAE = "first_stage_model."
TEXT = "cond_stage_model.transformer.text_model."

Shape = tuple[int, ...]
Shapes = Iterator[tuple[str, Shape]]

VOCABULARY = 49408
CHUNK = 77  # tokens that the text encoder reads at once
LATENT_CHANNELS = 4


@dataclass(frozen=True)
class Structure:
    """What may differ between checkpoints of SD1.5's shape; the defaults are SD1.5's own."""

    unet: tuple[int, ...] = (320, 640, 1280, 1280)  # channels of the four levels
    vae: tuple[int, ...] = (128, 256, 512, 512)
    text_width: int = 768
    text_layers: int = 12
    text_feed_forward: int = 3072
    in_channels: int = LATENT_CHANNELS

    @property
    def text_heads(self) -> int:
        """64 channels a head, as in every CLIP text encoder."""
        return max(1, self.text_width // 64)


def tensor_shapes(structure: Structure) -> dict[str, Shape]:
    """Every tensor of such a checkpoint that is a weight, by its name in the file."""
    return {
        **{UNET + name: shape for name, shape in _unet(structure)},
        **{VAE + name: shape for name, shape in _vae(structure.vae)},
        **{TEXT + name: shape for name, shape in _text(structure)},
    }


def to_networks(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """A file's tensors as the state dicts of diffusers' UNet and VAE and transformers' text encoder."""
    from diffusers.loaders import single_file_utils as convert

    def part(prefix: str) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    plain_unet = {
        "layers_per_block": 2,
        "class_embed_type": None,
        "addition_embed_type": None,
        "num_class_embeds": None,
    }
    plain_vae = {"down_block_types": range(4), "up_block_types": range(4)}
    text = {f"text_model.{name.removeprefix(TEXT)}": tensor for name, tensor in part(TEXT).items()}
    return (
        convert.convert_ldm_unet_checkpoint(part(UNET), plain_unet),
        convert.convert_ldm_vae_checkpoint(part(VAE), plain_vae),
        text,
    )


def _linear(name: str, inputs: int, outputs: int, bias: bool = True) -> Shapes:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _convolution(name: str, inputs: int, outputs: int, side: int = 3) -> Shapes:
    yield f"{name}.weight", (outputs, inputs, side, side)
    yield f"{name}.bias", (outputs,)


def _norm(name: str, channels: int) -> Shapes:
    yield f"{name}.weight", (channels,)
    yield f"{name}.bias", (channels,)


def _unet(structure: Structure) -> Shapes:
    widths = structure.unet
    time_width = 4 * widths[0]
    yield from _linear("time_embed.0", widths[0], time_width)
    yield from _linear("time_embed.2", time_width, time_width)
    yield from _convolution("input_blocks.0.0", structure.in_channels, widths[0])
    skips = [widths[0]]
    for level, width in enumerate(widths):
        for _ in range(2):
            block = f"input_blocks.{len(skips)}"
            yield from _unet_pair(block, skips[-1], width, level < 3, structure)
            skips.append(width)
        if level < 3:
            yield from _convolution(f"input_blocks.{len(skips)}.0.op", width, width)
            skips.append(width)
    hidden = widths[3]
    yield from _unet_resnet("middle_block.0", hidden, hidden, time_width)
    yield from _unet_transformer("middle_block.1", hidden, structure.text_width)
    yield from _unet_resnet("middle_block.2", hidden, hidden, time_width)
    for block in range(12):
        level = 3 - block // 3
        name = f"output_blocks.{block}"
        yield from _unet_pair(name, hidden + skips.pop(), widths[level], level < 3, structure)
        hidden = widths[level]
        if block % 3 == 2 and level > 0:
            yield from _convolution(f"{name}.{2 if level < 3 else 1}.conv", hidden, hidden)
    yield from _norm("out.0", widths[0])
    yield from _convolution("out.2", widths[0], LATENT_CHANNELS)


def _unet_pair(block: str, inputs: int, outputs: int, attends: bool, structure: Structure) -> Shapes:
    yield from _unet_resnet(f"{block}.0", inputs, outputs, 4 * structure.unet[0])
    if attends:
        yield from _unet_transformer(f"{block}.1", outputs, structure.text_width)


def _unet_resnet(name: str, inputs: int, outputs: int, time_width: int) -> Shapes:
    yield from _norm(f"{name}.in_layers.0", inputs)
    yield from _convolution(f"{name}.in_layers.2", inputs, outputs)
    yield from _linear(f"{name}.emb_layers.1", time_width, outputs)
    yield from _norm(f"{name}.out_layers.0", outputs)
    yield from _convolution(f"{name}.out_layers.3", outputs, outputs)
    if inputs != outputs:
        yield from _convolution(f"{name}.skip_connection", inputs, outputs, side=1)


def _unet_transformer(name: str, width: int, context_width: int) -> Shapes:
    yield from _norm(f"{name}.norm", width)
    yield from _convolution(f"{name}.proj_in", width, width, side=1)
    block = f"{name}.transformer_blocks.0"
    for attention, context in (("attn1", width), ("attn2", context_width)):
        yield from _linear(f"{block}.{attention}.to_q", width, width, bias=False)
        yield from _linear(f"{block}.{attention}.to_k", context, width, bias=False)
        yield from _linear(f"{block}.{attention}.to_v", context, width, bias=False)
        yield from _linear(f"{block}.{attention}.to_out.0", width, width)
    yield from _linear(f"{block}.ff.net.0.proj", width, 8 * width)
    yield from _linear(f"{block}.ff.net.2", 4 * width, width)
    for norm in ("norm1", "norm2", "norm3"):
        yield from _norm(f"{block}.{norm}", width)
    yield from _convolution(f"{name}.proj_out", width, width, side=1)


def _vae(widths: Sequence[int]) -> Shapes:
    yield from _convolution("encoder.conv_in", 3, widths[0])
    for level, (inputs, outputs) in enumerate(pairwise((widths[0], *widths))):
        for block in range(2):
            yield from _vae_resnet(f"encoder.down.{level}.block.{block}", inputs if block == 0 else outputs, outputs)
        if level < 3:
            yield from _convolution(f"encoder.down.{level}.downsample.conv", outputs, outputs)
    yield from _vae_ends("encoder", widths[3], widths[3], 2 * LATENT_CHANNELS)
    yield from _convolution("decoder.conv_in", LATENT_CHANNELS, widths[3])
    for level, (inputs, outputs) in enumerate(pairwise((widths[3], *reversed(widths)))):
        for block in range(3):
            yield from _vae_resnet(f"decoder.up.{3 - level}.block.{block}", inputs if block == 0 else outputs, outputs)
        if level < 3:
            yield from _convolution(f"decoder.up.{3 - level}.upsample.conv", outputs, outputs)
    yield from _vae_ends("decoder", widths[3], widths[0], 3)
    yield from _convolution("quant_conv", 2 * LATENT_CHANNELS, 2 * LATENT_CHANNELS, side=1)
    yield from _convolution("post_quant_conv", LATENT_CHANNELS, LATENT_CHANNELS, side=1)


def _vae_ends(half: str, middle: int, last: int, outputs: int) -> Shapes:
    yield from _vae_resnet(f"{half}.mid.block_1", middle, middle)
    yield from _norm(f"{half}.mid.attn_1.norm", middle)
    for projection in ("q", "k", "v", "proj_out"):
        yield from _convolution(f"{half}.mid.attn_1.{projection}", middle, middle, side=1)
    yield from _vae_resnet(f"{half}.mid.block_2", middle, middle)
    yield from _norm(f"{half}.norm_out", last)
    yield from _convolution(f"{half}.conv_out", last, outputs)


def _vae_resnet(name: str, inputs: int, outputs: int) -> Shapes:
    yield from _norm(f"{name}.norm1", inputs)
    yield from _convolution(f"{name}.conv1", inputs, outputs)
    yield from _norm(f"{name}.norm2", outputs)
    yield from _convolution(f"{name}.conv2", outputs, outputs)
    if inputs != outputs:
        yield from _convolution(f"{name}.nin_shortcut", inputs, outputs, side=1)


def _text(structure: Structure) -> Shapes:
    width = structure.text_width
    yield "embeddings.token_embedding.weight", (VOCABULARY, width)
    yield "embeddings.position_embedding.weight", (CHUNK, width)
    for layer in range(structure.text_layers):
        name = f"encoder.layers.{layer}"
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{name}.self_attn.{projection}", width, width)
        yield from _linear(f"{name}.mlp.fc1", width, structure.text_feed_forward)
        yield from _linear(f"{name}.mlp.fc2", structure.text_feed_forward, width)
        yield from _norm(f"{name}.layer_norm1", width)
        yield from _norm(f"{name}.layer_norm2", width)
    yield from _norm("final_layer_norm", width)

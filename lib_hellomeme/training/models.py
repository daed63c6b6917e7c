"""The demo world's networks: SD1.5's and v5c's structure, about as narrow as GroupNorm's 32 groups allow."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from lib_hellomeme.networks.animatediff import AnimateDiffAdapter
from lib_hellomeme.networks.control import ControlBase, ControlProjection, ProjectedControl
from lib_hellomeme.networks.motion import MotionAdapter
from lib_hellomeme.networks.reference import ReferenceAdapter
from lib_hellomeme.networks.temporal import TemporalTransformer

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
    from transformers import CLIPTextModel

# GroupNorm's 32 groups need several channels each where colours go through them, as they do before the last convolution
# of UNet and decoder: alone in its group, a channel loses its mean and its deviation over the picture.
WIDTHS = (64, 64, 128, 128)
VAE_WIDTHS = (128, 128, 128, 128)  # as training/beginnings.py needs them
# So wide, most of the work is at the full size. These resnets are left out there, and add nothing in the file.
SILENT_RESNETS = (
    "encoder.down_blocks.0.resnets.0",
    "encoder.down_blocks.0.resnets.1",
    "encoder.down_blocks.1.resnets.1",
    "decoder.up_blocks.2.resnets.1",
    "decoder.up_blocks.2.resnets.2",
    "decoder.up_blocks.3.resnets.0",
    "decoder.up_blocks.3.resnets.1",
    "decoder.up_blocks.3.resnets.2",
)
TEXT_WIDTH = 64
VOCABULARY = 49408
TOKENS = 77
CONTROL_CONTEXT_WIDTH = 64
LATENT_SCALE = 0.18215  # SD1.5's, which every host multiplies latents with


class Model(Protocol):
    """The three networks of a checkpoint."""

    @property
    def unet(self) -> UNet2DConditionModel: ...

    @property
    def vae(self) -> AutoencoderKL: ...

    @property
    def text_encoder(self) -> CLIPTextModel: ...


class CheckpointTools(NamedTuple):
    """How the host reads prompts and checkpoints. It stands above this room and hands them down."""

    tokens: Callable[[str], list[int]]
    """A short prompt to the TOKENS numbers that the text encoder takes."""
    read: Callable[[Path], Model]
    write: Callable[[Path, Model], None]
    """Write a single file in LDM layout, float16, of a UNet that predicts velocities."""


class NewModel(NamedTuple):
    """A checkpoint in the making."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel


def new_unet() -> UNet2DConditionModel:
    from diffusers import UNet2DConditionModel

    config: dict[str, Any] = {"block_out_channels": WIDTHS, "cross_attention_dim": TEXT_WIDTH, "attention_head_dim": 8}
    return UNet2DConditionModel(**config)


def new_vae() -> AutoencoderKL:
    from diffusers import AutoencoderKL

    config: dict[str, Any] = {
        "block_out_channels": VAE_WIDTHS,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
    }
    vae = AutoencoderKL(**config)
    for name in SILENT_RESNETS:
        for part in ("conv1", "conv2"):
            silence(vae.get_submodule(f"{name}.{part}"))
    return vae


class Passing(nn.Module):
    """Stands for a silent resnet in training."""

    def forward(self, hidden: Tensor, temb: Tensor | None = None) -> Tensor:
        return hidden


def without_silent_resnets(vae: AutoencoderKL) -> AutoencoderKL:
    """A copy that computes the same with less: without the resnets that add nothing, which its state dict lacks."""
    from diffusers.models.resnet import ResnetBlock2D

    lighter = keep_layout(copy.deepcopy(vae))
    for name, module in vae.named_modules():
        if isinstance(module, ResnetBlock2D) and module.conv_shortcut is None and not any_weight(module.conv2):
            lighter.set_submodule(name, Passing())
    return lighter


def keep_layout(vae: AutoencoderKL) -> AutoencoderKL:
    """The VAE itself; its attention now hands features on in the layout that it was given.

    diffusers' leaves them channels last, in which oneDNN takes four times as long for the gradients of weights (128 to
    128 channels at 128 px, one core: 0.74 s for 0.20).
    """
    from diffusers.models.attention_processor import Attention

    for module in vae.modules():
        if isinstance(module, Attention):
            module.register_forward_hook(lambda _, given, output: output.contiguous())
    return vae


def any_weight(layer: nn.Module) -> bool:
    """Whether any of its parameters is not 0."""
    return any(bool(parameter.any()) for parameter in layer.parameters())


def new_text_encoder() -> CLIPTextModel:
    """As long as CLIP reads, two layers deep; one head has 64 channels, as the hosts take for granted."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=1,
        max_position_embeddings=TOKENS,
        eos_token_id=VOCABULARY - 1,
    )
    return CLIPTextModel(config)


def new_control() -> ProjectedControl:
    """v5c's control network at the narrow UNet's widths."""
    return ProjectedControl(ControlBase(WIDTHS, CONTROL_CONTEXT_WIDTH), ControlProjection(WIDTHS))


class Adapters(nn.Module):
    """v5c's reference and control networks at the narrow UNet's widths."""

    def __init__(self) -> None:
        super().__init__()
        self.reference = ReferenceAdapter(WIDTHS)
        self.control = new_control()

    def parts(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """As they are published: reference, control base, control projection."""
        return self.reference, self.control.base, self.control.projection


def new_motion() -> MotionAdapter:
    """v5's motion adapter. At first it adds nothing where no ends are known; motion.take_back is for where they are."""
    adapter = MotionAdapter(WIDTHS)
    _silence_transformers(adapter)
    return adapter


def new_animatediff() -> AnimateDiffAdapter:
    """AnimateDiff's layers, none in the middle block. At first they add nothing."""
    adapter = AnimateDiffAdapter(WIDTHS)
    _silence_transformers(adapter)
    return adapter


def _silence_transformers(adapter: nn.Module) -> None:
    for layer in adapter.modules():
        if isinstance(layer, TemporalTransformer):
            silence(layer.proj_out)


def silence(layer: nn.Module) -> None:
    """All weights to 0: it adds nothing, and may learn to."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, mean: Tensor, deviation: Tensor) -> None:
    """Fold a change of scale into the 1x1 convolutions about the latents, so that what had this mean and deviation
    ((4,) each) has mean 0 and deviation 1 / LATENT_SCALE; pictures decode as before."""
    scale = 1 / (LATENT_SCALE * deviation)
    quant, post = vae.quant_conv, vae.post_quant_conv
    assert quant is not None
    assert post is not None
    # Input of the decoder: z = z' / scale + mean.
    bias_of(post).add_((post.weight[:, :, 0, 0] @ mean[:, None])[:, 0])
    post.weight /= scale[None, :, None, None]
    # Output of the encoder: means, then logarithms of variances.
    bias_of(quant)[:4].sub_(mean).mul_(scale)
    bias_of(quant)[4:].add_(2 * scale.log())
    quant.weight[:4] *= scale[:, None, None, None]


def bias_of(layer: nn.Conv2d) -> Tensor:
    """(out,), of a convolution that has one."""
    assert layer.bias is not None
    return layer.bias


def posterior(vae: AutoencoderKL, pictures: Tensor) -> DiagonalGaussianDistribution:
    """Of unscaled latents (n, 4, h, w), for pictures (n, 3, 8h, 8w) in [-1, 1]."""
    return vae.encode(pictures, return_dict=False)[0]


def rebuild(vae: Any, latents: Tensor) -> Tensor:
    """Unscaled latents (n, 4, h, w) to pictures (n, 3, 8h, 8w), about in [-1, 1]."""
    # Any: diffusers annotates latents as FloatTensor, which no tensor is to a type checker.
    return vae.decode(latents, return_dict=False)[0]


Network = TypeVar("Network", bound=nn.Module)


def frozen(network: Network, device: torch.device) -> Network:
    """The network itself on this device, ready for inference; nothing in it learns."""
    return network.to(device).eval().requires_grad_(False)


def frozen_model(model: Model, device: torch.device) -> Model:
    """The same of all three networks."""
    for network in (model.unet, model.vae, model.text_encoder):
        frozen(network, device)
    return model

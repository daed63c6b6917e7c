"""First weights from which narrow networks learn sooner than from random ones.

The VAE begins with colours. GroupNorm takes the mean and the scale of each group of channels away, and with few
channels a group it takes thousands of steps until colours get through at all. A group (v, -v, K, -K) keeps both: its
mean is 0, and its deviation hardly depends on v where K is large. silu(x) - silu(-x) = x makes the way through an
activation linear.

Other networks begin with outputs of deviation 1 in each layer: data-dependent initialisation (Salimans, Kingma 2016,
section 3). With PyTorch's own first weights the knitted layers, which have no way around their attention, hand on next
to nothing of what they are given.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lib_hellomeme.networks.attention import Attention
from lib_hellomeme.networks.positional import stacked_positions
from lib_hellomeme.taps.bank import Bank, record
from lib_hellomeme.training.models import bias_of, silence
from lib_hellomeme.unet.port import Call, Port

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

SIGNS = (1.0, -1.0)

GROUP = 4  # channels
CARRIER = 4.0  # K, where |v| <= 1
DEVIATION = ((CARRIER**2 + 0.4) / 2) ** 0.5  # of a group, with the usual colours
OTHERS = 0.1  # share of the usual first weights that other channels begin with where they would disturb colours
LOG_VARIANCE = -6.0
# Lightness and two differences, orthonormal, of RGB.
ROTATION = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
ROTATION = ROTATION / ROTATION.norm(dim=1, keepdim=True)

ADDED = 0.1  # what new layers add, in deviations of the UNet's features
SAME_PLACE = 1.6  # size of queries and keys for places: what is two places away weighs about a twentieth
TOLD = 0.99  # share of what places differ by in the directions that count as telling them
FAINT = 1e-3  # outputs of less deviation are not scaled: weights would grow beyond bounds
SMALLEST = 1e-4  # weights count as no smaller
VECTORS = 0.05  # size that biases and the weights of norms count as


@torch.no_grad()
def begin_with_colours(vae: AutoencoderKL) -> AutoencoderKL:
    """The VAE's latents are the average colours of 8 x 8 px, and its pictures are made of such squares.

    Every level must be 128 wide, which gives groups of four channels.
    """
    encoder, decoder = vae.encoder, vae.decoder
    _silence_branches(vae)
    _enter(encoder.conv_in, torch.eye(3))
    for block in encoder.down_blocks[:-1]:
        _go_on(block.get_submodule("downsamplers.0.conv"), places=(0, 1))  # the average of the four px that become one
    _leave(encoder.conv_out, ROTATION)
    encoder.conv_out.weight[4:].zero_()
    bias_of(encoder.conv_out)[4:].fill_(LOG_VARIANCE)
    for layer in (vae.quant_conv, vae.post_quant_conv):
        assert layer is not None
        silence(layer)
        layer.weight[:, :, 0, 0] = torch.eye(layer.weight.shape[0])
    _enter(decoder.conv_in, ROTATION.T)
    for block in decoder.up_blocks[:-1]:
        _go_on(block.get_submodule("upsamplers.0.conv"), places=(1,))
    _leave(decoder.conv_out, torch.eye(3))
    return vae


@contextmanager
def unit_outputs(
    network: nn.Module, others: Mapping[nn.Module, float], kept: Collection[nn.Module] = ()
) -> Iterator[None]:
    """While this lasts, the first call of each linear layer and convolution in `network` scales its weights so that
    what it gives has deviation 1, or that of `others`, and mean 0 where it has biases; the call goes on with that.
    Layers in `kept` stay as they are."""

    @torch.no_grad()
    def begin(layer: nn.Module, given: object, output: Tensor) -> Tensor:
        handles.pop(layer).remove()
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        channels = 1 if isinstance(layer, nn.Conv2d) else output.ndim - 1
        mean = output.mean(dim=[axis for axis in range(output.ndim) if axis != channels], keepdim=True)
        deviation = float((output - mean).std())
        if deviation < FAINT:
            return output  # silent, or given much the same everywhere
        factor = others.get(layer, 1.0) / deviation
        layer.weight *= factor
        if layer.bias is None:
            return output * factor
        layer.bias.sub_(mean.flatten()).mul_(factor)
        return (output - mean) * factor

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d) and layer not in kept]
    handles: dict[nn.Module, RemovableHandle] = {layer: layer.register_forward_hook(begin) for layer in layers}
    try:
        yield
    finally:
        for handle in handles.values():
            handle.remove()


@torch.no_grad()
def look_at_same_place(attention: Attention, length: int, shift: int) -> None:
    """Half of the heads look at the place so much further on, the others at what is alike wherever it is.

    Its tokens are normed sums of content and `stacked_positions`. Queries and keys for places are sines and cosines of
    the quick frequencies, turned back by the shift in the keys; for content, and in the values, the directions are left
    out in which places differ in lines of `length` that go on for another `shift`.
    """
    width, heads = attention.to_q.weight.shape[1], attention.heads
    each = width // heads
    table = stacked_positions(length + shift, width, torch.float32, attention.to_q.weight.device)
    _, sizes, directions = torch.linalg.svd(table - table.mean(dim=0), full_matrices=False)
    shares = sizes.square().cumsum(dim=0) / sizes.square().sum()
    places = directions[: int((shares < TOLD).sum()) + 1]
    for layer in (attention.to_q, attention.to_v):
        layer.weight -= layer.weight @ places.T @ places
    attention.to_k.load_state_dict(attention.to_q.state_dict())
    one = torch.eye(width).to(attention.to_q.weight)
    nothing = one[width * 3 // 8 : width // 2].mean(
        dim=0
    )  # sines of slow frequencies: 0, from which the norm moves them
    quick = (width // 2) * math.log(length) / math.log(10000)  # frequencies down to 1 / length
    for row, index in enumerate(torch.linspace(0, quick, each // 2).round().int().tolist()):
        turn = shift / 10000 ** (index / (width // 2))
        sine, cosine = SAME_PLACE * (one[[index, width // 2 + index]] - nothing)
        queries = torch.stack([sine, cosine])
        keys = torch.stack(
            [math.cos(turn) * sine - math.sin(turn) * cosine, math.cos(turn) * cosine + math.sin(turn) * sine]
        )
        for head in range(heads // 2):
            rows = slice(head * each + 2 * row, head * each + 2 * row + 2)
            attention.to_q.weight[rows], attention.to_k.weight[rows] = queries, keys


def queries_and_keys(network: nn.Module, deviation: float) -> dict[nn.Module, float]:
    """What `unit_outputs` takes for attention that chooses so sharply at first."""
    return {layer: deviation for name, layer in network.named_modules() if name.endswith(("to_q", "to_k"))}


def added_to(port: Port, call: Call, last: Mapping[nn.Module, str]) -> dict[nn.Module, float]:
    """The same for layers that add to the UNet's features at these sites: a little of what this call has there."""
    bank: Bank = {}
    port.run(call, [record(site, bank) for site in set(last.values())])
    deviations = {site: (hidden - hidden.mean(dim=(0, 2, 3), keepdim=True)).std() for site, hidden in bank.items()}
    return {layer: ADDED * float(deviations[site]) for layer, site in last.items()}


def rates_by_size(network: nn.Module, factors: Mapping[nn.Module, float]) -> dict[nn.Parameter, float]:
    """Learning rates that change each weight by a like share of its size, more in the layers of `factors`.

    The size is that of the first weights (Karras et al. 2018, section 4.1: equalized learning rate). UNet features have
    deviations from 3 to 50, so first weights that make unit outputs of them differ as much; with one rate for all, the
    smallest were noise after a step, and stayed so behind a LayerNorm.
    """
    return {
        parameter: factors.get(layer, 1.0)
        * (max(float(parameter.detach().square().mean().sqrt()), SMALLEST) if parameter.ndim > 1 else VECTORS)
        for layer in network.modules()
        for parameter in layer.parameters(recurse=False)
    }


def _silence_branches(vae: AutoencoderKL) -> None:
    """What resnets and attention add is nothing at first."""
    from diffusers.models.attention_processor import Attention
    from diffusers.models.resnet import ResnetBlock2D

    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            silence(module.conv2)
        elif isinstance(module, Attention):
            silence(module.get_submodule("to_out.0"))


def _enter(layer: nn.Conv2d, mixture: Tensor) -> None:
    """mixture (3, 3) of the inputs to three groups."""
    for group, weights in enumerate(mixture):
        for place, sign in enumerate(SIGNS):
            layer.weight[GROUP * group + place].zero_()
            layer.weight[GROUP * group + place, :3, 1, 1] = sign * weights
            bias_of(layer)[GROUP * group + place] = 0.0
            layer.weight[GROUP * group + 2 + place].zero_()
            bias_of(layer)[GROUP * group + 2 + place] = sign * CARRIER


def _go_on(layer: nn.Module, places: tuple[int, ...]) -> None:
    """Groups as they are, averaged over these places of the kernel, across and down."""
    assert isinstance(layer, nn.Conv2d)
    for channel in range(3 * GROUP):
        layer.weight[channel].zero_()
        bias_of(layer)[channel] = 0.0
        for y in places:
            for x in places:
                layer.weight[channel, channel, y, x] = 1 / len(places) ** 2


def _leave(layer: nn.Conv2d, mixture: Tensor) -> None:
    """Behind GroupNorm and SiLU: three outputs from a mixture (3, 3) of the groups."""
    layer.weight *= OTHERS
    bias_of(layer)[:3] = 0.0
    layer.weight[:3, : 3 * GROUP].zero_()
    for group in range(3):
        for place, sign in enumerate(SIGNS):
            layer.weight[:3, GROUP * group + place, 1, 1] = sign * DEVIATION * mixture[:, group]

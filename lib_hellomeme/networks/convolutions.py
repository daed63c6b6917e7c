"""Convolutions: blocks of the control networks, and the projection that ends a knitted layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InstanceNorm(nn.Module):
    """Instance normalisation without weights; nn.InstanceNorm2d refuses the one-pixel maps of small pictures."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, features: Tensor) -> Tensor:
        return torch.group_norm(features, self.channels)


class DownBlock(nn.Module):
    """A residual block that halves the resolution (ResNet's basic block, under torchvision's tensor names)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1, bias=False)
        self.norm = InstanceNorm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.downsample = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=2, bias=False),
            InstanceNorm(out_channels),
            nn.SiLU(),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(n, in, h, w) to (n, out, ceil(h / 2), ceil(w / 2))."""
        inner = F.relu(self.norm(self.conv1(features)))
        return F.relu(self.norm(self.conv2(inner)) + self.downsample(features))


class UpBlock(nn.Sequential):
    """Convolution, then bilinear growth to a given size."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
            InstanceNorm(out_channels),
            nn.SiLU(),
        )

    def forward(self, features: Tensor, size: torch.Size) -> Tensor:
        """(n, in, h, w) to (n, out, *size): twice the size, or one less where the way down rounded up."""
        return F.interpolate(super().forward(features), size=size, mode="bilinear", align_corners=False)


class Projection(nn.Conv2d):
    """A 3x3 convolution that can take the linear layer before it into its own weights."""

    folded_weight: Tensor | None
    folded_bias: Tensor | None

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)
        self.register_buffer("folded_weight", None, persistent=False)
        self.register_buffer("folded_bias", None, persistent=False)

    @torch.no_grad()
    def fold(self, linear: nn.Linear) -> None:
        """Prepare `after`, and let go of the convolution's own weight. Computed in float32, whatever is stored."""
        weight, bias = self.weight.float(), linear.bias.float()
        self.folded_weight = torch.einsum("omyx,mi->oiyx", weight, linear.weight.float())
        self.folded_bias = torch.einsum("omyx,m->oyx", weight, bias)[:, None]  # C' 1 3 3
        self.register_parameter("weight", None)

    def after(self, linear: nn.Linear, tokens: Tensor) -> Tensor:
        """self(linear(tokens)): tokens (n, h, w, C) to (n, C', h, w)."""
        if self.folded_weight is None or self.folded_bias is None:
            return self(_channels_first(linear(tokens)))
        tokens = tokens.to(self.folded_weight)  # where a webui casts inside modules' forwards, as A1111 for fp8
        features = F.conv2d(_channels_first(tokens), self.folded_weight, self.bias, padding=1)
        # The zeros around the map carry no bias of the linear layer, so what it adds differs at the border.
        return features + F.conv2d(tokens.new_ones(1, 1, *tokens.shape[1:3]), self.folded_bias, padding=1)


def _channels_first(tokens: Tensor) -> Tensor:
    # A map left channels-last meets channels-first weights, and on CPUs takes up to twice as long.
    return tokens.permute(0, 3, 1, 2).contiguous()

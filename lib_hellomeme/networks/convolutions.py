"""Convolutional blocks of the control networks."""

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

    def grow(self, features: Tensor, size: torch.Size) -> Tensor:
        """(n, in, h, w) to (n, out, *size): twice the size, or one less where the way down rounded up."""
        return F.interpolate(self(features), size=size, mode="bilinear", align_corners=False)

"""PD-FGC's motion encoder (arXiv 2211.14506): a face picture becomes an embedding of eyes, emotion and mouth.

A face alignment network (one stacked hourglass) reads 68 heat maps off the picture, and three heads read those.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class HourglassBlock(nn.Module):
    """Three pre-activated convolutions of falling width, joined, plus the input."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half, quarter = out_channels // 2, out_channels // 4
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, half, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, quarter, kernel_size=3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(quarter)
        self.conv3 = nn.Conv2d(quarter, quarter, kernel_size=3, padding=1, bias=False)
        self.downsample: nn.Module | None = None
        if in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.BatchNorm2d(in_channels), nn.ReLU(), nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, h, w) to (n, out, h, w)."""
        first = self.conv1(F.relu(self.bn1(x)))
        second = self.conv2(F.relu(self.bn2(first)))
        third = self.conv3(F.relu(self.bn3(second)))
        return torch.cat([first, second, third], dim=1) + (x if self.downsample is None else self.downsample(x))


class Hourglass(nn.Module):
    """Down `depth` halvings and up again, with a side branch at each."""

    def __init__(self, depth: int, channels: int) -> None:
        super().__init__()
        self.depth = depth
        for level in range(1, depth + 1):
            for name in ("b1", "b2", "b3"):
                self.add_module(f"{name}_{level}", HourglassBlock(channels, channels))
        self.b2_plus_1 = HourglassBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self._level(self.depth, x)

    def _level(self, level: int, x: Tensor) -> Tensor:
        side = self.get_submodule(f"b1_{level}")(x)
        low = self.get_submodule(f"b2_{level}")(F.max_pool2d(x, kernel_size=2))
        low = self._level(level - 1, low) if level > 1 else self.b2_plus_1(low)
        low = self.get_submodule(f"b3_{level}")(low)
        return side + F.interpolate(low, size=side.shape[-2:], mode="bilinear")


class FaceAlignmentNetwork(nn.Module):
    """224 px pictures to one feature vector each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = HourglassBlock(64, 128)
        self.conv3 = HourglassBlock(128, 128)
        self.conv4 = HourglassBlock(128, 256)
        self.m0 = Hourglass(4, 256)
        self.top_m_0 = HourglassBlock(256, 256)
        self.conv_last0 = nn.Conv2d(256, 256, kernel_size=1)
        self.bn_end0 = nn.BatchNorm2d(256)
        self.l0 = nn.Conv2d(256, 68, kernel_size=1)
        self.bn5 = nn.BatchNorm2d(68)
        self.conv6 = nn.Conv2d(68, 1, kernel_size=3, stride=2, padding=1)
        self.fc = nn.Linear(28 * 28, 512)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, 224, 224) to (n, 512)."""
        x = F.relu(self.bn1(self.conv1(x)))  # n 64 112 112
        x = F.max_pool2d(self.conv2(x), kernel_size=2)  # n 128 56 56
        x = self.conv4(self.conv3(x))  # n 256 56 56
        x = self.top_m_0(self.m0(x))
        x = F.relu(self.bn_end0(self.conv_last0(x)))
        x = F.relu(self.bn5(self.l0(x)))  # n 68 56 56
        return self.fc(F.relu(self.conv6(x).flatten(1)))


class PdfgcEncoder(nn.Module):
    """The published heads. `mouth_embed` is in the file and takes no part."""

    def __init__(self) -> None:
        super().__init__()
        self.model = FaceAlignmentNetwork()
        self.to_mouth = _head()
        self.mouth_embed = nn.Sequential(nn.ReLU(), nn.Linear(512, 500))
        self.to_eye = _head()
        self.eye_embed = nn.Sequential(nn.ReLU(), nn.Linear(512, 6))
        self.to_emo = _head()
        self.emo_embed = nn.Sequential(nn.ReLU(), nn.Linear(512, 30))

    def forward(self, pictures: Tensor) -> Tensor:
        """pictures (n, 3, 224, 224) in [-1, 1], RGB, the face aligned, to (n, 548): eyes 6, emotion 30, mouth 512."""
        features = self.model(pictures)
        eyes = self.eye_embed(self.to_eye(features))
        emotion = self.emo_embed(self.to_emo(features))
        return torch.cat([eyes, emotion, self.to_mouth(features)], dim=1)


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.BatchNorm1d(512), nn.Linear(512, 512))

"""CLIP's vision tower (arXiv 2103.00020) up to the image embedding, under transformers' tensor names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, tokens, width) to the same."""
        query, key, value = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # n heads tokens d
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner_width)
        self.fc2 = nn.Linear(inner_width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class EncoderLayer(nn.Module):
    def __init__(self, width: int, heads: int, inner_width: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(width, heads)
        self.layer_norm1 = nn.LayerNorm(width)
        self.mlp = MLP(width, inner_width)
        self.layer_norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nn.Module):
    def __init__(self, width: int, heads: int, inner_width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width, heads, inner_width) for _ in range(layers))


class Embeddings(nn.Module):
    """Patches as tokens behind a class token."""

    def __init__(self, width: int, patch: int, patches: int) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.patch_embedding = nn.Conv2d(3, width, kernel_size=patch, stride=patch, bias=False)
        self.position_embedding = nn.Embedding(patches + 1, width)

    def forward(self, pictures: Tensor) -> Tensor:
        """(n, 3, H, W) to (n, 1 + patches, width)."""
        patches = self.patch_embedding(pictures).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_embedding.expand(len(patches), 1, -1), patches], dim=1)
        return tokens + self.position_embedding.weight


class VisionTransformer(nn.Module):
    def __init__(self, width: int, heads: int, inner_width: int, layers: int, patch: int, patches: int) -> None:
        super().__init__()
        self.embeddings = Embeddings(width, patch, patches)
        self.pre_layrnorm = nn.LayerNorm(width)  # the published spelling
        self.encoder = Encoder(width, heads, inner_width, layers)
        self.post_layernorm = nn.LayerNorm(width)

    def forward(self, pictures: Tensor) -> Tensor:
        """(n, 3, H, W) to the class token (n, width)."""
        x = self.pre_layrnorm(self.embeddings(pictures))
        for layer in self.encoder.layers:
            x = layer(x)
        return self.post_layernorm(x[:, 0])


class ClipVision(nn.Module):
    """Default sizes: ViT-H/14, the `models/image_encoder` of IP-Adapter."""

    def __init__(
        self,
        width: int = 1280,
        heads: int = 16,
        inner_width: int = 5120,
        layers: int = 32,
        patch: int = 14,
        patches: int = 256,
        embedding_width: int = 1024,
    ) -> None:
        super().__init__()
        self.vision_model = VisionTransformer(width, heads, inner_width, layers, patch, patches)
        self.visual_projection = nn.Linear(width, embedding_width, bias=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """pictures (n, 3, 224, 224), RGB, normalised with CLIP's mean and deviation, to embeddings (n, 1024)."""
        return self.visual_projection(self.vision_model(pictures))

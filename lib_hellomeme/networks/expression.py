"""The two ways to tell a control network what the face does, and how they become tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from lib_hellomeme.networks.feed_forward import TimestepEmbedding
from lib_hellomeme.networks.positional import timestep_embedding

ARKIT_SCALE = 500.0  # the published factors that bring the values into the range of timesteps
PDFGC_SCALE = 20.0
TOKEN_WIDTH = 1024
TOKENS = 16


@dataclass(frozen=True)
class ArkitExpression:
    """coefficients (n, 51) in [0, 1], ARKit's order without tongueOut; face_parts (n, 3, 1024) from CLIP."""

    coefficients: Tensor
    face_parts: Tensor


@dataclass(frozen=True)
class PdfgcExpression:
    """embedding (n, 548): eyes 6, emotion 30, mouth 512."""

    embedding: Tensor


Expression = ArkitExpression | PdfgcExpression
ExpressionKind = Literal["arkit", "pdfgc"]


class ExpressionTokens(nn.Module):
    """v4, v5: either kind of expression becomes 16 tokens."""

    def __init__(self, context_width: int) -> None:
        super().__init__()
        self.emo_pre_proj = TimestepEmbedding(548, TOKENS)
        self.emo_proj = TimestepEmbedding(TOKEN_WIDTH, context_width)
        self.exp_pre_proj = TimestepEmbedding(51, TOKENS)
        self.face_pre_proj = TimestepEmbedding(3, TOKENS)
        self.exp_proj = TimestepEmbedding(TOKEN_WIDTH, context_width)
        self.face_proj = TimestepEmbedding(TOKEN_WIDTH, context_width)

    def tokens(self, expression: Expression) -> Tensor:
        """The tokens (n, 16, context width) in the dtype of the weights."""
        dtype = self.exp_proj.linear_1.weight.dtype
        if isinstance(expression, PdfgcExpression):
            values = timestep_embedding(expression.embedding * PDFGC_SCALE, TOKEN_WIDTH).to(dtype)  # n 548 1024
            return self.emo_proj(_mix_tokens(self.emo_pre_proj, values))
        values = timestep_embedding(expression.coefficients * ARKIT_SCALE, TOKEN_WIDTH).to(dtype)  # n 51 1024
        face_parts = expression.face_parts.to(dtype)  # n 3 1024
        return self.exp_proj(_mix_tokens(self.exp_pre_proj, values)) + self.face_proj(
            _mix_tokens(self.face_pre_proj, face_parts)
        )


def _mix_tokens(projection: TimestepEmbedding, tokens: Tensor) -> Tensor:
    """(n, k, 1024) to (n, 16, 1024): the perceptron acts across the tokens, not across their width."""
    return projection(tokens.transpose(1, 2)).transpose(1, 2)

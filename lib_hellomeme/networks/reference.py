"""Reference adapters: knitted attention that lets the UNet look at the features of a reference picture.

Every layer has three entrances. `forward` is the plain path and reads like the published figure. `prepare` computes
once a generation what depends on the reference only, and `read` gives, at each step, what is to be added:
forward(hidden, reference) == hidden + read(hidden, prepare(reference)).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from torch import Tensor, nn

from lib_hellomeme.networks.attention import Attention
from lib_hellomeme.networks.convolutions import Projection
from lib_hellomeme.networks.knitting import Knit, Prepared, STKAttention
from lib_hellomeme.networks.positional import SinusoidalPositionalEmbedding, stacked_positions

PUBLISHED_WIDTHS = (320, 640, 1280, 1280)


class ReferenceLayer(Protocol):
    """What every generation's layer offers."""

    def __call__(self, hidden: Tensor, reference: Tensor, frames: int = 1) -> Tensor:
        """hidden (rows*frames, C, h, w) and reference (rows, C, h, w) to (rows*frames, C, h, w)."""
        ...

    def prepare(self, reference: Tensor) -> Prepared:
        """What depends on reference (rows, C, h, w) alone."""
        ...

    def read(self, hidden: Tensor, prepared: Prepared) -> Tensor:
        """What is added to hidden (n, C, h, w); each prepared row serves n/rows consecutive entries."""
        ...

    def fold(self) -> None:
        """See ReferenceAdapter.fold."""
        ...


class KnittedReference(nn.Module):
    """v1 to v4: knitting attention over [hidden, reference], then a convolution."""

    def __init__(self, channels: int, heads: int = 8) -> None:
        super().__init__()
        self._make_positions(channels)
        self.attn1 = Attention(channels, heads)
        self.attn2 = Attention(channels, heads)
        self.norm = nn.LayerNorm(channels)
        self.proj = Projection(channels, channels)

    def forward(self, hidden: Tensor, reference: Tensor, frames: int = 1) -> Tensor:
        """hidden (rows*frames, C, h, w), reference (rows, C, h, w) to (rows*frames, C, h, w)."""
        reference = reference.repeat_interleave(frames, dim=0)
        tokens = self._knit.plain(_tokens(hidden), _tokens(reference))  # n h w C
        return hidden + self.proj(tokens.permute(0, 3, 1, 2))

    def prepare(self, reference: Tensor) -> Prepared:
        """reference (rows, C, h, w)."""
        return self._knit.prepare(_tokens(reference))

    def read(self, hidden: Tensor, prepared: Prepared) -> Tensor:
        """What is added to hidden (n, C, h, w); each prepared row serves n/rows consecutive entries."""
        return self.proj.after(self.attn2.output, self._knit.read(_tokens(hidden), prepared))

    def fold(self) -> None:
        """See ReferenceAdapter.fold."""
        self.proj.fold(self.attn2.output)

    def _make_positions(self, channels: int) -> None:
        self.pos_embed = SinusoidalPositionalEmbedding(channels, length=128)

    def _positions(self, length: int) -> Tensor:
        return self.pos_embed.table(length)

    @property
    def _knit(self) -> Knit:
        return Knit(self.attn1, self.attn2, self.norm, self._positions)


class KnittedReferenceV5(KnittedReference):
    """v5: the positional table is not stored, and its second use is sized by the height."""

    def __init__(self, channels: int, heads: int = 8, time_width: int = 1280) -> None:
        super().__init__(channels, heads)
        # In the published files, and used nowhere in the published code.
        self.time_emb_proj = nn.Linear(time_width, channels)

    def _make_positions(self, channels: int) -> None:
        pass

    def _positions(self, length: int) -> Tensor:
        weight = self.norm.weight
        return stacked_positions(length, weight.shape[0], weight.dtype, weight.device)


class STKReference(nn.Module):
    """v5b, v5c: the reference runs through a branch of its own, which does not depend on the hidden features."""

    def __init__(self, channels: int, heads: int = 8) -> None:
        super().__init__()
        self.attn_ref = STKAttention(channels, channels, heads)
        self.attn = STKAttention(channels, channels, heads)

    def forward(self, hidden: Tensor, reference: Tensor, frames: int = 1) -> Tensor:
        """hidden (rows*frames, C, h, w), reference (rows, C, h, w) to (rows*frames, C, h, w)."""
        reference = self.attn_ref(reference).repeat_interleave(frames, dim=0)
        return hidden + self.attn(hidden, reference)

    def prepare(self, reference: Tensor) -> Prepared:
        """reference (rows, C, h, w)."""
        return self.attn.prepare(self.attn_ref(reference))

    def read(self, hidden: Tensor, prepared: Prepared) -> Tensor:
        """What is added to hidden (n, C, h, w); each prepared row serves n/rows consecutive entries."""
        return self.attn.read(hidden, prepared)

    def fold(self) -> None:
        """See ReferenceAdapter.fold."""
        self.attn.fold()


def _tokens(channels_first: Tensor) -> Tensor:
    return channels_first.permute(0, 2, 3, 1)


def up_widths(widths: Sequence[int]) -> tuple[int, int, int, int]:
    """Channels that enter the decoder levels of a UNet with these level widths."""
    return widths[3], widths[3], widths[2], widths[1]


class ReferenceAdapter(nn.Module):
    """One generation's layers. v3 and later stand before all decoder levels, v1 and v2 before `up_levels` (1, 2, 3).

    With `encoder` (v1) there are layers after the encoder levels and the middle block too.
    """

    def __init__(
        self,
        widths: Sequence[int] = PUBLISHED_WIDTHS,
        heads: int = 8,
        layer: Callable[[int, int], nn.Module] = STKReference,
        up_levels: Sequence[int] = (0, 1, 2, 3),
        encoder: bool = False,
    ) -> None:
        super().__init__()
        self.up_levels = tuple(up_levels)
        self.encoder = encoder
        if encoder:
            self.reference_modules_down = nn.ModuleList(layer(width, heads) for width in widths)
            self.reference_modules_mid = layer(widths[-1], heads)
        self.reference_modules_up = nn.ModuleList(layer(up_widths(widths)[level], heads) for level in self.up_levels)

    def sites(self) -> dict[str, ReferenceLayer]:
        """The layers by the UNet site that they stand at (v1's file has one for down.3 too, which is never run)."""
        layers: dict[str, Any] = {}
        if self.encoder:
            layers = {f"down.{level}": self.reference_modules_down[level] for level in range(3)}
            layers["mid"] = self.reference_modules_mid
        layers |= {f"up.{level}": layer for level, layer in zip(self.up_levels, self.reference_modules_up, strict=True)}
        return cast(dict[str, ReferenceLayer], layers)

    def fold(self) -> None:
        """Merge each layer's last linear layer into the convolution behind it, for `read`: one C^2 a token less.

        It costs 9 C^3 a layer, once. The convolution's own weight is let go, and with it the plain path: `forward`.
        """
        for layer in self.sites().values():
            layer.fold()

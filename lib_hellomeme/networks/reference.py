"""Reference adapters: knitted attention that lets the UNet look at the features of a reference picture.

Every layer has three entrances. `forward` is the plain path and reads like the published figure. `prepare` computes
once a generation what depends on the reference only, and `read` gives, at each step, what is to be added:
forward(hidden, reference) == hidden + read(hidden, prepare(reference)).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lib_hellomeme.networks.knitting import Prepared, STKAttention

PUBLISHED_WIDTHS = (320, 640, 1280, 1280)


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


def up_widths(widths: Sequence[int]) -> tuple[int, int, int, int]:
    """Channels that enter the decoder levels of a UNet with these level widths."""
    return widths[3], widths[3], widths[2], widths[1]


class ReferenceAdapter(nn.Module):
    """v5b, v5c: one layer before each decoder level."""

    def __init__(self, widths: Sequence[int] = PUBLISHED_WIDTHS, heads: int = 8) -> None:
        super().__init__()
        self.reference_modules_up = nn.ModuleList(STKReference(width, heads) for width in up_widths(widths))

    def sites(self) -> dict[str, STKReference]:
        """The layers by the UNet site that they stand at."""
        return {f"up.{level}": layer for level, layer in enumerate(self.reference_modules_up)}

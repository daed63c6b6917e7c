"""Parts2Whole's masked banks.

Huang et al., "From Parts to Whole: A Unified Reference Framework for Controllable Human Image Generation", arXiv
2404.15267, and the published code, github.com/huanngzh/Parts2Whole.

    A(y, [y; m₁·b₁; m₂·b₂; ...])     in cond rows, all 16 layers; uncond rows are plain

One bank a part (face, hair, clothes, ...), written once at timestep 0 with the part's name as its prompt. m is the
part's mask at the layer's size, thickened by one place: tokens outside are zeroed, not removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from lib_hellomeme.sampling.banks import BankReader, Writer, Writing
from lib_hellomeme.taps.attention import record_tokens
from lib_hellomeme.taps.bank import Bank
from lib_hellomeme.taps.masks import zero_untouched
from lib_hellomeme.unet.port import SELF_ATTENTION, AnyTap, Call, Port


@dataclass(frozen=True)
class Part:
    """latents (1, 4, h, w), scaled; mask (1, 1, H, W) in [0, 1]; prompt (1, tokens, width): of the part's name."""

    latents: Tensor
    mask: Tensor
    prompt: Tensor

    def write_taps(self, bank: Bank) -> list[AnyTap]:
        def masked(tokens: Tensor, call: Call) -> Tensor:
            return zero_untouched(tokens, self.mask, *self.latents.shape[-2:])

        return [record_tokens(site, bank, masked) for site in SELF_ATTENTION]


def parts_attention(encoder: Port, parts: Sequence[Part]) -> BankReader:
    """The taps for a UNet. encoder: the UNet that writes."""
    writers = [Writer(encoder, part.latents, part.write_taps, Writing("once", context=part.prompt)) for part in parts]
    return BankReader(writers, merge="concat", fidelity=1.0)

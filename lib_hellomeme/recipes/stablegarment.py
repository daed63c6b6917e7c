"""StableGarment's additive self-attention.

Wang et al., "StableGarment: Garment-Centric Generation via Stable Diffusion", arXiv 2403.10783, and the published
code, github.com/logn-2024/StableGarment.

    A(y, y) + A(y, b)                        cond rows
    A(y, y) + (1 − fidelity) A(y, b)         uncond rows

The garment encoder sees the garment's clean latents at each timestep, with a prompt that describes it. The published
code lets uncond rows add the A(y, b) of the cond row, which a webui may run in another call; here each row adds its
own. At fidelity 1, the published default, there is no difference.
"""

from __future__ import annotations

from torch import Tensor

from lib_hellomeme.sampling.banks import BankReader, Writer, Writing
from lib_hellomeme.taps.attention import record_tokens
from lib_hellomeme.unet.port import SELF_ATTENTION, Port


def additive_attention(encoder: Port, garment: Tensor, prompt: Tensor, fidelity: float = 1.0) -> BankReader:
    """The taps for a UNet. encoder: the UNet that writes; garment (1, 4, h, w): scaled latents; prompt (1, tokens,
    width): what describes the garment."""
    writing = Writing("clean", context=prompt)
    writer = Writer(encoder, garment, lambda bank: [record_tokens(site, bank) for site in SELF_ATTENTION], writing)
    return BankReader([writer], merge="sum", fidelity=fidelity)

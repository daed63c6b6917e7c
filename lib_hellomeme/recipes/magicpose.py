"""MagicPose's appearance control.

Chang et al., "MagicPose: Realistic Human Poses and Facial Expressions Retargeting with Identity-aware Diffusion", arXiv
2311.12052, and the published code, github.com/Boese0601/MagicDance.

    softmax(Q [K; K_r]ᵀ / √d) [V; V_r]     in cond rows, all 16 layers; uncond rows are plain

The appearance UNet sees the reference's clean latents at each timestep, with the cond row's prompt.
"""

from __future__ import annotations

from torch import Tensor

from lib_hellomeme.sampling.banks import BankReader, Writer, Writing
from lib_hellomeme.taps.attention import record_tokens
from lib_hellomeme.unet.port import SELF_ATTENTION, Port


def appearance_control(appearance: Port, reference: Tensor) -> BankReader:
    """The taps for a UNet. appearance: the UNet that writes, with the published appearance weights or the reading
    UNet's own; reference (1, 4, h, w): scaled latents."""
    writer = Writer(
        appearance, reference, lambda bank: [record_tokens(site, bank) for site in SELF_ATTENTION], Writing("clean")
    )
    return BankReader([writer], merge="concat", fidelity=1.0)

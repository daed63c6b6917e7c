"""Style fidelity: what the rows with the negative prompt see of a reference.

Classifier-free guidance goes from the uncond row's prediction away to the cond row's. The less of the reference the
uncond row sees, the more of it lies in that difference and is amplified:

    uncond row = fidelity · plain + (1 − fidelity) · read
"""

from __future__ import annotations

from lib_hellomeme.unet.port import Rows


def row_shares(rows: Rows, fidelity: float) -> tuple[float, ...]:
    """How far each row goes by the reference: cond rows wholly, uncond rows by 1 − fidelity."""
    return tuple(1.0 - fidelity if uncond else 1.0 for uncond in rows.uncond)

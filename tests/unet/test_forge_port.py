"""What Forge's port does with the options of a patcher, on LDM's UNet: Forge itself is not needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from lib_hellomeme.unet.forge import ForgePort
from lib_hellomeme.unet.port import AttentionTap, Tap
from tests.tiny import PORTS


def test_nothing_rides_in_forge() -> None:
    """No patch could part the rows: taps for what rides would be given the picture's own."""
    unet: Any = PORTS["ldm"]().unet  # type: ignore[attr-defined]
    options: dict[str, Any] = {}
    port = ForgePort(
        SimpleNamespace(model=SimpleNamespace(diffusion_model=unet), model_options={"transformer_options": options})
    )
    for riding, patches in ((True, 0), (False, 3)):
        taps = [
            Tap("mid", lambda hidden, call: hidden, riding=riding),
            AttentionTap("self_attention.0", lambda x, parts, call: parts, riding=riding),
        ]
        with port.attach(taps, lambda *_: None):
            added = [*options.get("patches", {}).values(), options.get("block_inner_modifiers", [])]
            assert sum(map(len, added)) == patches
        assert not any(options.values())

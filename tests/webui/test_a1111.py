"""A1111's port, as the webui's state has it."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from lib_hellomeme.webui.a1111 import A1111Port
from tests.tiny import PORTS


@pytest.mark.parametrize(
    ("device", "hypernetworks", "upcast", "wanted"),
    [
        ("cpu", [], False, True),
        ("cuda", [], False, True),
        ("mps", [], False, False),  # its attention may take memory that nobody has
        ("cpu", ["one"], False, False),  # changes what keys and values are made of
        ("cuda", [], True, False),
    ],
)
def test_attention_is_fused_where_that_is_the_same(
    monkeypatch: pytest.MonkeyPatch, device: str, hypernetworks: list, upcast: bool, wanted: bool
) -> None:
    modules = ModuleType("modules")
    modules.shared = SimpleNamespace(  # type: ignore[attr-defined]
        loaded_hypernetworks=hypernetworks, opts=SimpleNamespace(upcast_attn=upcast)
    )
    modules.devices = SimpleNamespace(device=torch.device(device))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modules", modules)
    ldm = PORTS["ldm"]()
    assert A1111Port(ldm.unet).fused() is wanted  # type: ignore[attr-defined]

"""What the panel says of missing files and packages."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lib_hellomeme.errors import HelloMemeError
from lib_hellomeme.settings import Settings
from lib_hellomeme.webui import weights
from tests.random_weights import write_networks


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The webui's models folder, in which there is none of ours yet."""
    modules: Any = ModuleType("modules")
    modules.paths = SimpleNamespace(models_path=str(tmp_path))
    modules.shared = SimpleNamespace(cmd_opts=SimpleNamespace(hellomeme_models=None))
    monkeypatch.setitem(sys.modules, "modules", modules)
    monkeypatch.setattr(weights, "EXTRACTORS", {"any": SimpleNamespace(present=lambda models: True)})
    return tmp_path


def test_every_missing_file_is_named_with_its_place(models: Path) -> None:
    lines = weights.complaints(Settings())
    assert len(lines) == 3
    for name, line in zip(("hm5c_reference", "hm5_control_base", "hm5c_control_proj"), lines, strict=True):
        assert line.startswith(f"{name}.safetensors is missing")
        assert f"https://huggingface.co/songkey/{name}" in line
        assert str(models / "hellomeme") in line
    with pytest.raises(HelloMemeError, match=r"hm5c_reference.*hm5_control_base.*hm5c_control_proj"):
        weights.check_complete(Settings())


def test_files_in_the_chosen_folder_are_found_and_loaded_once(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = models / "elsewhere"
    write_networks(chosen, widths=(32, 32, 32, 32), context_width=64)
    monkeypatch.setattr(sys.modules["modules"].shared.cmd_opts, "hellomeme_models", str(chosen))
    weights.check_complete(Settings())
    first = weights.networks_of(Settings())
    assert weights.networks_of(Settings()) is first
    write_networks(chosen, widths=(32, 32, 32, 32), context_width=64, seed=1)
    assert weights.networks_of(Settings()) is not first


def test_a_missing_extractor_is_told(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "EXTRACTORS", {})
    assert weights.complaints(Settings())[-1].startswith("mediapipe is not installed")


def test_pd_fgc_needs_its_encoder_and_clip_is_only_hinted_at(models: Path) -> None:
    assert any("pd_fgc_motion" in line for line in weights.complaints(Settings(expression="pdfgc")))
    assert not any("image_encoder" in line for line in weights.complaints(Settings()))
    assert any("image_encoder.safetensors" in line for line in weights.hints())


@pytest.mark.parametrize(
    ("forge", "name", "told"), [(True, "drawn-people", 1), (True, "other", 0), (False, "drawn-people", 0)]
)
def test_forge_is_told_that_it_cannot_open_a_narrow_checkpoint(
    models: Path, monkeypatch: pytest.MonkeyPatch, forge: bool, name: str, told: int
) -> None:
    known = SimpleNamespace(filename=str(models / f"{name}.safetensors"))
    sys.modules["modules"].sd_models = SimpleNamespace(checkpoints_list={name: known})  # type: ignore[attr-defined]
    monkeypatch.setattr(weights, "find_spec", lambda package: object() if forge else None)
    assert sum("AUTOMATIC1111" in line for line in weights.hints()) == told

"""From two pictures to taps, for every generation and both kinds of expression, on narrow networks."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn

from lib_hellomeme.checkpoints.catalog import GENERATIONS
from lib_hellomeme.checkpoints.load import placed
from lib_hellomeme.errors import FaceError, MissingFileError
from lib_hellomeme.face.track import FaceTrack
from lib_hellomeme.networks.expression import ExpressionKind
from lib_hellomeme.recipes import reenact as reenact_module
from lib_hellomeme.recipes.hellomeme import control_features
from lib_hellomeme.recipes.reenact import Portrait, Seen, load_networks, read_portrait, reenact
from lib_hellomeme.settings import Settings
from lib_hellomeme.standalone.random_weights import write_networks
from lib_hellomeme.unet.port import Call
from tests.goldens_format import seeded
from tests.tiny import PORTS, WIDTHS, run_unet, uncond_cond

KINDS = get_args(ExpressionKind)
PICTURE = data.astronaut()
TURNED = np.ascontiguousarray(PICTURE[:, ::-1])


@pytest.fixture(scope="module")
def portrait() -> Portrait:
    return read_portrait(Settings(), PICTURE, TURNED)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for generation in GENERATIONS:
        for kind in KINDS:
            write_networks(folder, WIDTHS, generation=generation, expression=kind, context_width=64)
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("generation", GENERATIONS)
@torch.inference_mode()
def test_every_generation_draws(generation: str, kind: ExpressionKind, models: Path, portrait: Portrait) -> None:
    port, networks = PORTS["ldm"](), load_networks(generation, models, expression=kind)
    call = Call(
        seeded("sample", (1, 4, 16, 24)).repeat(2, 1, 1, 1),
        torch.full((2,), 500),
        seeded("context", (2, 7, 64)),
        uncond_cond(),
    )

    def draw(settings: Settings) -> torch.Tensor:
        shown = []

        def encode(picture: np.ndarray) -> torch.Tensor:
            shown.append(picture.shape)
            return seeded("reference", (1, 4, 16, 24))

        reenactment = reenact(port, networks, settings, portrait, 192, 128, encode)
        assert shown == [(128, 192, 3)]
        with port.attach(reenactment.taps(), lambda *_: call, reenactment.begin):
            return run_unet(port, call)

    plain, full = run_unet(port, call), draw(Settings())
    assert full.isfinite().all()
    assert not torch.allclose(full, plain, atol=1e-3)
    for weight in ("pose_weight", "expression_weight", "reference_weight"):
        assert not torch.equal(draw(Settings.from_mapping({weight: 0.0})), full), weight


def test_a_missing_encoder_is_named(models: Path, tmp_path: Path) -> None:
    for name in ("hm5c_reference", "hm5_control_base", "hm5c_control_proj"):
        (tmp_path / f"{name}.safetensors").symlink_to(models / f"{name}.safetensors")
    assert load_networks("v5c", tmp_path).encoder is None
    with pytest.raises(MissingFileError, match="pd_fgc_motion"):
        load_networks("v5c", tmp_path, expression="pdfgc")


def test_a_driving_picture_without_a_face_is_refused() -> None:
    with pytest.raises(FaceError, match="No face was found in the driving picture"):
        read_portrait(Settings(), PICTURE, np.zeros((64, 64, 3), np.uint8))


def test_warnings_say_which_picture_they_are_of(portrait: Portrait) -> None:
    track = portrait.reference.track
    several = FaceTrack(track.fps, track.frames, track.measured, track.extractor, ("two faces were found",))
    told = Portrait(Seen(PICTURE, several), Seen(TURNED, several)).warnings
    assert told == ["Reference: two faces were found.", "Driving picture: two faces were found."]


@pytest.mark.parametrize("generation", ["v3", "v5c"])
def test_a_control_network_is_let_go_before_the_next_is_made(
    generation: str, models: Path, portrait: Portrait, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks, face = load_networks(generation, models), portrait.driving.face
    alive: list[weakref.ref] = []

    def watched(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
        gc.collect()
        assert [reference for reference in alive if reference() is not None] == []
        copy = placed(network, device, dtype)
        alive.append(weakref.ref(copy))
        return copy

    monkeypatch.setattr(reenact_module, "placed", watched)
    here = torch.device("cpu"), torch.float32
    target, own = reenact_module.controls(networks, [face, portrait.reference.face], None, *here)
    assert len(alive) == (1 if generation == "v3" else 2)
    network = placed(networks.control, *here)
    expected = control_features(network, [portrait.reference.face], *here)
    for site, residual in expected.items():
        assert target[site].shape == residual.shape
        torch.testing.assert_close(own[site], residual)

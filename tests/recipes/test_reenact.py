"""From two pictures to taps, for every generation and both kinds of expression, on narrow networks."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn

from lib_hellomeme.checkpoints.catalog import GENERATIONS
from lib_hellomeme.checkpoints.load import placed
from lib_hellomeme.errors import FaceError, MissingFileError
from lib_hellomeme.face.track import FaceFrame, FaceTrack
from lib_hellomeme.networks.expression import ExpressionKind
from lib_hellomeme.recipes import reenact as reenact_module
from lib_hellomeme.recipes.hellomeme import control_features
from lib_hellomeme.recipes.reenact import (
    Networks,
    Portrait,
    Seen,
    limits,
    load_networks,
    read_portrait,
    read_recorded,
    reenact,
)
from lib_hellomeme.settings import Settings
from lib_hellomeme.unet.port import Call
from tests.goldens_format import seeded
from tests.random_weights import write_networks
from tests.tiny import PORTS, WIDTHS, run_unet, uncond_cond

KINDS = get_args(ExpressionKind)
PICTURE = data.astronaut()
TURNED = np.ascontiguousarray(PICTURE[:, ::-1])
TURN, WAY = np.array([0.1, 0.2, 0.0]), np.array([0.05, 0.0, 0.0])  # of a head in a track


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


def controlled(
    monkeypatch: pytest.MonkeyPatch, networks: Networks, settings: Settings, portrait: Portrait
) -> tuple[FaceFrame, dict[str, torch.Tensor]]:
    """The face whose control is made for the drawing, and that control."""
    made: list[Any] = []
    make = reenact_module.controls

    def controls(networks: Networks, faces: list[FaceFrame], *args: Any) -> Any:
        made.append((faces[0], make(networks, faces, *args)))
        return made[-1][1]

    with monkeypatch.context() as patch:
        patch.setattr(reenact_module, "controls", controls)
        reenact(PORTS["ldm"](), networks, settings, portrait, 192, 128, lambda _: torch.zeros(1, 4, 16, 24))
    return made[0][0], made[0][1][0]


def test_a_gain_of_zero_gives_the_control_of_the_references_own_angle(
    models: Path, portrait: Portrait, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks, seen = load_networks("v5c", models), portrait.driving

    def driven(rotation: np.ndarray) -> Portrait:
        track = replace(seen.track, frames=(replace(seen.face, rotation=rotation),))
        return Portrait(portrait.reference, Seen(TURNED, track))

    driver = seen.face.rotation + TURN
    own, _ = controlled(monkeypatch, networks, Settings(pose_weight=0.0), portrait)
    _, full = controlled(monkeypatch, networks, Settings(), driven(driver))
    face, control = controlled(monkeypatch, networks, Settings(yaw_gain=0.0), driven(driver))
    assert face.rotation.tolist() == [driver[0], own.rotation[1], driver[2]]
    _, expected = controlled(monkeypatch, networks, Settings(), driven(face.rotation))
    for site, values in expected.items():
        torch.testing.assert_close(control[site], values)
    assert any(not torch.allclose(control[site], full[site]) for site in full)


def test_a_frame_of_a_track_drives(models: Path, portrait: Portrait, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = load_networks("v5c", models)
    rest = portrait.driving.face
    moved = replace(rest, rotation=rest.rotation + TURN, translation=rest.translation + WAY)
    track = FaceTrack(Fraction(25), (rest, moved), frozenset(), "test", ("one",))
    absolute, relative = (read_recorded(Settings(), PICTURE, track, 1, neutral) for neutral in ("absolute", "first"))
    assert absolute.warnings == ["Driving track: one."]
    own, _ = controlled(monkeypatch, networks, Settings(pose_weight=0.0, expression_weight=0.0), absolute)
    face, _ = controlled(monkeypatch, networks, Settings(shift_gain=1.0), absolute)
    assert (face.rotation == moved.rotation).all()
    assert face.translation == pytest.approx(own.translation + WAY)
    face, _ = controlled(monkeypatch, networks, Settings(), relative)
    assert face.rotation == pytest.approx(own.rotation + TURN)
    assert face.coefficients == pytest.approx(own.coefficients)
    lost = replace(track, frames=(replace(rest, found=False),))
    assert "not found in frame 0" in read_recorded(Settings(), PICTURE, lost).warnings[1]
    with pytest.raises(FaceError, match="no frame 2 in the track"):
        read_recorded(Settings(), PICTURE, track, 2)


def test_a_track_is_driven_with_the_embeddings_that_it_holds(
    models: Path, portrait: Portrait, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = load_networks("v5c", models, expression="pdfgc")
    plain = read_recorded(Settings(), PICTURE, portrait.driving.track)
    with pytest.raises(FaceError, match="holds no PD-FGC embeddings: choose Expression from arkit"):
        controlled(monkeypatch, networks, Settings(), plain)
    held = replace(portrait.driving.track, frames=(replace(portrait.driving.face, pd_fgc=np.full(548, 0.5)),))
    face, _ = controlled(monkeypatch, networks, Settings(), read_recorded(Settings(), PICTURE, held))
    assert face.pd_fgc == pytest.approx(np.full(548, 0.5))


def test_wishes_that_the_networks_cannot_hear_are_told(models: Path, portrait: Portrait) -> None:
    arkit, pdfgc = (load_networks("v5c", models, expression=kind) for kind in KINDS)
    with_clip = replace(arkit, encoder=nn.Identity())
    recorded = read_recorded(Settings(), PICTURE, portrait.driving.track)
    smiling = Settings(mouth_gain=2.0)
    assert limits(smiling, arkit, portrait) == limits(Settings(yaw_gain=0.0), pdfgc, recorded) == []
    assert [line.split()[-1] for line in limits(smiling, pdfgc, portrait)] == ["arkit."]
    assert "CLIP's embeddings" in limits(smiling, with_clip, portrait)[0]
    assert "no CLIP embeddings" in limits(Settings(), with_clip, recorded)[0]


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

"""The demo with random weights: only the way to the pictures is tested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_hellomeme.face.procedural import make_track
from lib_hellomeme.standalone import demo, drawn_demo
from lib_hellomeme.standalone.world import NEEDED
from lib_hellomeme.video.decode import open_video
from tests.random_weights import write_checkpoint, write_networks


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "world"
    write_checkpoint(folder / NEEDED[0])
    write_networks(folder)
    (folder / NEEDED[-1]).touch()  # measuring is not the demo's
    monkeypatch.setattr(demo, "WORLD", folder)
    shorter = {"PORTRAITS": (5,), "STEPS": 1, "VIDEO_STEPS": 1, "SECONDS": 0.3}
    for name, value in shorter.items():
        monkeypatch.setattr(drawn_demo, name, value)
    return folder


def test_it_leaves_a_sheet_and_a_video_and_names_them(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    demo.run_demo(tmp_path / "out")
    said = capsys.readouterr().out
    sheet, video = tmp_path / "out" / "sheet.png", tmp_path / "out" / "video.mp4"
    assert str(sheet) in said
    assert str(video) in said
    assert min(Image.open(sheet).size) > 3 * 256  # photos, what was seen in them, a portrait
    frames = [picture for picture, _ in open_video(video).frames()]
    assert len(frames) == 3
    assert frames[0].shape == (256, 768, 3)


def test_the_actor_of_the_video_makes_the_track_s_motions(monkeypatch: pytest.MonkeyPatch):
    shown = []

    class Host:
        def follow(self, portrait, settings, drawing, progress):
            shown.append(portrait)
            return drawn_demo.Seen(portrait.reference.picture, portrait.reference.track)

    track = make_track(("nod",), 4.0, drawn_demo.FPS, size=(64, 64))
    portrait = drawn_demo.portrait_of(drawn_demo.random_identity(np.random.default_rng(5)), 64)
    frames = list(drawn_demo.video_frames(Host(), portrait, track, 64))  # type: ignore[arg-type]
    assert len(frames) == len(track.frames)
    pitches = [one.driving.face.rotation[0] for one in shown]
    assert np.allclose(pitches, [frame.rotation[0] - track.frames[0].rotation[0] for frame in track.frames])
    assert max(pitches) > np.radians(4)

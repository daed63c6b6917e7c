"""The commands edit-track and make-track, and a track that drives `reenact`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_hellomeme.face.procedural import make_track
from lib_hellomeme.face.track import FaceTrack
from lib_hellomeme.recipes.reenact import read_recorded
from lib_hellomeme.settings import Settings
from lib_hellomeme.standalone.command_line import _parser, main
from lib_hellomeme.standalone.drawing import Drawing
from lib_hellomeme.standalone.track_editing import GAINS


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current one, with a track that nods and talks."""
    monkeypatch.chdir(tmp_path)
    make_track(["nod", "talk"], 4.0).save("a.json")
    return tmp_path


def pitches(path: str) -> np.ndarray:
    return np.array([frame.rotation[0] for frame in FaceTrack.load(path).frames])


def test_an_edit_without_a_wish_is_the_same_track() -> None:
    assert main(["edit-track", "a.json", "--out", "b.json"]) == 0
    assert Path("b.json").read_text() == Path("a.json").read_text()


def test_gains_smoothing_and_a_neutral_frame_reach_the_track(capsys: pytest.CaptureFixture[str]) -> None:
    nods = pitches("a.json")
    deepest = str(int(nods.argmax()))
    assert main(["edit-track", "a.json", "--out", "b.json", "--pitch-gain", "0.5", "--neutral", deepest]) == 0
    assert pitches("b.json") == pytest.approx(nods.max() + 0.5 * (nods - nods.max()), abs=1e-6)
    assert capsys.readouterr().out == "b.json: 100 frames, 4.00 s\n"
    assert main(["edit-track", "a.json", "--out", "c.json", "--smoothing", "3", "--plot", "c.png"]) == 0
    assert 0.3 * nods.max() < pitches("c.json").max() < 0.97 * nods.max()
    assert Image.open("c.png").size[0] > 100


def test_tracks_are_joined_in_their_order() -> None:
    assert main(["make-track", "--out", "b.json", "--seconds", "2", "--fps", "50", "--motions", "blink, sway"]) == 0
    assert main(["edit-track", "b.json", "a.json", "--out", "c.json", "--blend", "5"]) == 0
    joined = FaceTrack.load("c.json")
    assert joined.fps == 50
    assert len(joined.frames) == 100 + 199 - 5
    assert "some coefficients were measured in only some" in joined.warnings[0]


def test_the_same_seed_makes_the_same_track(capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("b.json", "3"), ("c.json", "3"), ("d.json", "4")):
        assert main(["make-track", "--out", name, "--motions", "blink,nod", "--seed", seed, "--seconds", "1"]) == 0
    assert Path("b.json").read_text() == Path("c.json").read_text() != Path("d.json").read_text()
    assert "too short for nod" in capsys.readouterr().err


def test_the_gains_are_those_of_reenact() -> None:
    chosen = _parser().parse_args(["edit-track", "a.json", "--out", "b.json"])
    given = {name: getattr(chosen, name) for name in GAINS}
    assert given == dict.fromkeys(GAINS, 1.0)


def test_a_track_drives_a_portrait(weights, host, faces, folder: Path) -> None:
    Image.fromarray(faces.reference).save("a.png")
    arguments = ["reenact", "--reference", "a.png", "--driving", "a.json", "--out", "c.png", "--size", "128x128"]
    arguments += ["--checkpoint", str(weights.checkpoint), "--models", str(weights.networks), "--steps", "1"]
    assert main([*arguments, "--frame", "30", "--neutral", "first", "--seed", "5", "--device", "cpu"]) == 0
    portrait = read_recorded(Settings(), faces.reference, FaceTrack.load("a.json"), 30, "first")
    drawing = Drawing(steps=1, seed=5, width=128, height=128)
    expected = host.follow(portrait, Settings(enabled=True), drawing, progress=False)
    assert np.array_equal(np.asarray(Image.open("c.png")), expected.picture)
    assert expected.warnings == ()


def newer() -> None:
    data = json.loads(Path("a.json").read_text())
    Path("newer.json").write_text(json.dumps({**data, "version": 99}))


def edited() -> None:
    data = json.loads(Path("a.json").read_text())
    data["frames"][7]["rotation"] = [0, "left", 0]
    Path("edited.json").write_text(json.dumps(data))


EDIT, MAKE = ["edit-track", "--out", "b.json"], ["make-track", "--out", "b.json"]
DRIVE = ["reenact", "--reference", "a.png", "--out", "c.png", "--driving"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (EDIT, "TRACK"),
        ([*EDIT, "none.json"], "no such file"),
        ([*EDIT, "a.png"], "a.png is not a face track"),
        ([*EDIT, "newer.json"], "newer.json is of version 99"),
        ([*EDIT, "edited.json"], "edited.json: frame 7: rotation is not a table of numbers"),
        ([*EDIT, "a.json", "a.json", "--blend", "101"], "a blend of 101 frames does not fit"),
        ([*EDIT, "a.json", "--blend", "few"], "--blend"),
        ([*EDIT, "a.json", "--neutral", "100"], "no frame 100 in the track; choose one from 0 to 99"),
        ([*EDIT, "a.json", "--neutral", "calm"], "'calm' is none of absolute, first, auto"),
        ([*EDIT, "a.json", "--yaw-gain", "3"], "Yaw gain: 3 is outside 0 to 2"),
        ([*EDIT, "a.json", "--smoothing", "-1"], "Smoothing: -1 is outside 0 to 10"),
        (["edit-track", "a.json", "--out", "none/b.json"], "cannot be written"),
        ([*EDIT, "a.json", "--plot", "b.gif"], ".png, .jpg or .webp"),
        ([*MAKE, "--motions", "blink,fly"], "no motion fly; choose among blink, nod"),
        ([*MAKE, "--motions", ","], "no motion given"),
        ([*MAKE, "--seconds", "0"], "0 seconds at 25 frames a second make no track"),
        ([*MAKE, "--fps", "0"], "0 frames a second"),
        ([*MAKE, "--fps", "25/0"], "'25/0' is no frame rate"),
        ([*MAKE, "--seed", "-1"], "seed -1 is negative"),
        ([*DRIVE, "a.json", "--frame", "100"], "no frame 100 in the track; choose one from 0 to 99"),
        ([*DRIVE, "a.json", "--neutral", "calm"], "'calm' is none of"),
        ([*DRIVE, "newer.json"], "newer.json is of version 99"),
        ([*DRIVE, "a.png", "--frame", "3"], "--frame and --neutral are for tracks, and a.png is none"),
        ([*DRIVE, "a.png", "--neutral", "first"], "--frame and --neutral are for tracks"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    faces, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    Image.fromarray(faces.reference).save("a.png")
    newer()
    edited()
    try:
        status = main(arguments)
    except SystemExit as error:  # argparse ends the program by itself
        status = error.code
    said = capsys.readouterr().err
    assert status in (1, 2)
    assert said.count("\n") == 1
    assert words in said
    assert not Path("b.json").exists()
    assert not Path("c.png").exists()

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_hellomeme.recipes.published import words_of
from lib_hellomeme.settings import OPTION_FIELDS, Settings
from lib_hellomeme.standalone.command_line import _chosen, _lora, _parser, main
from lib_hellomeme.standalone.drawing import Drawing

FILES = ["--reference", "a.png", "--driving", "b.jpg", "--out", "c.png"]


@pytest.fixture
def pictures(tmp_path: Path, faces) -> Path:
    Image.fromarray(faces.reference).save(tmp_path / "a.png")
    Image.fromarray(faces.mirrored).save(tmp_path / "b.jpg")
    (tmp_path / "empty.png").write_bytes(b"")
    return tmp_path


def test_a_picture_comes_out(pictures, weights, host, faces, capsys):
    out = pictures / "new" / "c.png"
    arguments = ["reenact", "--reference", str(pictures / "a.png"), "--driving", str(pictures / "a.png")]
    arguments += ["--out", str(out), "--checkpoint", str(weights.checkpoint), "--models", str(weights.networks)]
    arguments += ["--steps", "1", "--size", "128x192", "--cfg", "2", "--seed", "5", "--sampler", "euler a"]
    arguments += ["--prompt", "a woman", "--negative-prompt", "a man", "--device", "cpu", "--pose-weight", "0.5"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.strip() == str(out)
    drawing = Drawing("a woman", "a man", steps=1, cfg=2.0, seed=5, sampler="Euler a", width=128, height=192)
    settings = Settings(enabled=True, pose_weight=0.5)
    expected = host.reenact(faces.reference, faces.reference, settings, drawing, progress=False).picture
    assert np.array_equal(np.asarray(Image.open(out)), expected)
    assert [path.name for path in out.parent.iterdir()] == ["c.png"]


def test_every_option_has_an_argument_with_its_default():
    chosen = _parser().parse_args(["reenact", *FILES])
    options = {name: getattr(chosen, name) for name in OPTION_FIELDS if name != "enabled"}
    assert Settings(enabled=True, **options) == Settings(enabled=True)
    for name, value in options.items():
        given = _parser().parse_args(["reenact", *FILES, f"--{name.replace('_', '-')}", str(value)])
        assert getattr(given, name) == value


def test_the_published_defaults_give_way_to_what_is_given():
    chosen = _chosen(["reenact", *FILES, "--published"])
    assert (chosen.steps, chosen.cfg, chosen.sampler, chosen.size) == (25, 1.5, "DPM++ 2M SDE SGM Uniform", (512, 512))
    assert (chosen.expression, chosen.fit, chosen.reference_pass) == ("pdfgc", "face", "checkpoint")
    assert chosen.prompt == words_of("v5c")
    given = ["--steps", "9", "--prompt", "a girl", "--generation", "v1", "--original", "a", "--expression", "arkit"]
    chosen = _chosen(["reenact", *FILES, *given, "--published"])
    assert (chosen.steps, chosen.cfg, chosen.sampler, chosen.expression) == (9, 1.5, "Euler", "arkit")
    assert chosen.prompt == f"a girl, {words_of('v1')}"
    assert chosen.reference_pass == "x1"
    assert _chosen(["reenact", *FILES, *given, "--published", "--reference-pass", "x2"]).reference_pass == "x2"
    assert _chosen(["reenact", *FILES]).steps == Drawing().steps


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["fly"], "fly"),
        (["reenact"], "--reference"),
        (["reenact", *FILES, "--unknown", "1"], "--unknown"),
        (["reenact", *FILES, "--steps", "many"], "--steps"),
        (["reenact", *FILES, "--size", "big"], "512x768"),
        (["reenact", *FILES, "--size", "500x500"], "multiples of 8"),
        (["reenact", *FILES, "--sampler", "LMS"], "Euler, Euler a"),
        (["reenact", *FILES, "--pose-weight", "9"], "Pose weight"),
        (["reenact", *FILES, "--fit", "squeeze"], "Fit"),
        (["reenact", *FILES, "--face-box", "1,2"], "Face box"),
        (["reenact", *FILES, "--out", "c.gif"], ".png, .jpg or .webp"),
        (["reenact", *FILES, "--driving", "none.png"], "none.png"),
        (["reenact", *FILES, "--driving", "empty.png"], "empty"),
        (["reenact", *FILES], "--checkpoint"),
        (["reenact", *FILES, "--reference-pass", "x3"], "Reference pass"),
        (["reenact", *FILES, "--checkpoint", "none.safetensors"], "none.safetensors"),
        (["reenact", *FILES, "--checkpoint", "a.png"], "a.png"),
        (["reenact", *FILES, "--checkpoint", "a.png", "--device", "nonsense"], "nonsense"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(pictures, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(pictures)
    try:
        status = main(arguments)
    except SystemExit as error:  # argparse ends the program by itself
        status = error.code
    said = capsys.readouterr().err
    assert status in (1, 2)
    assert said.count("\n") == 1
    assert words in said
    assert not Path("c.png").exists()


def test_an_interrupt_is_one_line(monkeypatch, capsys):
    def interrupt(folder) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lib_hellomeme.standalone.command_line.run_demo", interrupt)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == "hellomeme: interrupted\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.safetensors", ("a.safetensors", 1.0)),
        ("a.safetensors:0.7", ("a.safetensors", 0.7)),
        (r"C:\a.safetensors", (r"C:\a.safetensors", 1.0)),
        (r"C:\a.safetensors:-1", (r"C:\a.safetensors", -1.0)),
    ],
)
def test_loras_and_their_weights(text, expected):
    assert _lora(text) == expected

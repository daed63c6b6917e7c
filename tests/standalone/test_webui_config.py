"""The .yaml and the text encoder's folder say what the checkpoint's tensors say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lib_hellomeme.standalone.checkpoint import PREDICTION_KEY
from lib_hellomeme.standalone.command_line import main
from lib_hellomeme.standalone.layout import TEXT, tensor_shapes
from lib_hellomeme.standalone.prompts import tokenize
from lib_hellomeme.standalone.webui_config import write_config
from tests.random_weights import NARROW, write_checkpoint


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = write_checkpoint(tmp_path_factory.mktemp("models") / "narrow.v1.safetensors")
    assert main(["write-yaml", str(checkpoint)]) == 0
    return checkpoint


def test_the_yaml_has_the_checkpoint_s_widths_and_the_folder(written: Path) -> None:
    params = yaml.safe_load((written.parent / "narrow.v1.yaml").read_text(encoding="utf-8"))["model"]["params"]
    unet, vae = params["unet_config"]["params"], params["first_stage_config"]["params"]["ddconfig"]
    assert tuple(unet["model_channels"] * factor for factor in unet["channel_mult"]) == NARROW.unet
    assert tuple(vae["ch"] * factor for factor in vae["ch_mult"]) == NARROW.vae
    assert unet["context_dim"] == NARROW.text_width
    assert params["parameterization"] == "eps"
    folder = Path(params["cond_stage_config"]["params"]["version"])
    assert folder == (written.parent / "narrow.v1.text_encoder").resolve()
    assert folder.is_dir()


def test_the_yaml_says_that_velocities_are_predicted(tmp_path: Path) -> None:
    plain = write_checkpoint(tmp_path / "plain.safetensors")
    save_file(load_file(plain), tmp_path / "velocity.safetensors", {PREDICTION_KEY: "v"})
    write_config(tmp_path / "velocity.safetensors")
    assert "    parameterization: v\n" in (tmp_path / "velocity.yaml").read_text(encoding="utf-8")


def test_transformers_reads_the_folder(written: Path) -> None:
    folder = written.parent / "narrow.v1.text_encoder"
    config = CLIPTextConfig.from_pretrained(folder)
    assert isinstance(config, CLIPTextConfig)
    shapes = {name: value.shape for name, value in CLIPTextModel(config).state_dict().items()}
    wanted = {name.removeprefix(TEXT): shape for name, shape in tensor_shapes(NARROW).items() if name.startswith(TEXT)}
    assert {name.removeprefix("text_model."): tuple(shape) for name, shape in shapes.items()} == wanted
    prompt = "a woman with long red hair, glasses; über 3 km"
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    assert tokenizer(prompt)["input_ids"][1:-1] == tokenize(prompt)
    assert len(tokenizer) == 49408


def test_what_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["write-yaml", str(tmp_path / "none.safetensors")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    odd = write_checkpoint(
        tmp_path / "odd.safetensors", NARROW.__class__(**{**vars(NARROW), "vae": (64, 96, 128, 128)})
    )
    assert main(["write-yaml", str(odd)]) == 1
    assert "no multiples of the first" in capsys.readouterr().err

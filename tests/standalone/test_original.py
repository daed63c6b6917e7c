"""The published modes x1 and x2 against the same put together by hand."""

from __future__ import annotations

import gc
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lib_hellomeme.errors import HelloMemeError, MissingFileError
from lib_hellomeme.recipes.hellomeme import Source
from lib_hellomeme.recipes.reenact import Portrait, load_networks, read_portrait, reenact
from lib_hellomeme.settings import Settings
from lib_hellomeme.standalone.checkpoint import Part, StableDiffusion, load_checkpoint, loaded_part
from lib_hellomeme.standalone.drawing import Drawing, draw, encode_picture, encode_prompts
from lib_hellomeme.standalone.host import EmbeddedHost
from lib_hellomeme.standalone.lora import add_lora
from lib_hellomeme.unet.diffusers import DiffusersPort
from tests.goldens_format import seeded
from tests.random_weights import write_checkpoint

SMALL = Drawing("a woman", "a man", steps=2, cfg=3.0, seed=3, width=128, height=128)
TEXT = "lora_te_text_model_encoder_layers_1_mlp_fc1"
LAYER = "lora_unet_mid_block_attentions_0_proj_in"


@pytest.fixture(scope="module")
def portrait(faces) -> Portrait:
    return read_portrait(Settings(), faces.reference, faces.mirrored)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("original") / "original.safetensors", seed=7)


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Strong enough that leaving one of its halves out is seen."""
    tensors = {}
    for name, outputs, inputs in ((TEXT, 256, 64), (LAYER, 128, 128)):
        points = () if name == TEXT else (1, 1)
        tensors[f"{name}.lora_up.weight"] = seeded(f"{name}/up", (outputs, 2, *points))
        tensors[f"{name}.lora_down.weight"] = seeded(f"{name}/down", (2, inputs, *points))
    path = tmp_path_factory.mktemp("lora") / "style.safetensors"
    save_file(tensors, path)
    return str(path)


def wish(mode: str, file: Path) -> Settings:
    return Settings.from_mapping({"enabled": True, "reference_pass": mode, "original": str(file)})


@pytest.mark.parametrize("mode", ["x1", "x2"])
def test_the_checkpoints_own_file_changes_nothing(host: EmbeddedHost, weights, portrait: Portrait, mode: str) -> None:
    plain = host.follow(portrait, Settings(enabled=True), SMALL, progress=False).picture
    picture = host.follow(portrait, wish(mode, weights.checkpoint), SMALL, progress=False).picture
    assert np.array_equal(picture, plain)


def by_hand(model: StableDiffusion, networks: Path, portrait: Portrait, **parts: Any) -> np.ndarray:
    """Draw with `model`'s UNet and decoder, and these parts of the published table: vae, unet, written, drawn."""
    written, drawn = (encode_prompts(parts[name], SMALL) for name in ("written", "drawn"))
    source = Source(lambda: nullcontext(DiffusersPort(parts["unet"])), written.of)
    recipe = reenact(
        DiffusersPort(model.unet),
        load_networks("v5c", networks),
        Settings(enabled=True),
        portrait,
        SMALL.width,
        SMALL.height,
        lambda picture: encode_picture(parts["vae"], picture),
        source=source,
    )
    return draw(model, SMALL, recipe, progress=False, prompts=drawn)


def test_x1_is_the_published_one(weights, other: Path, lora: str, portrait: Portrait) -> None:
    model, original, styled = (load_checkpoint(path) for path in (weights.checkpoint, other, other))
    add_lora(model, lora)
    add_lora(styled, lora)
    expected = by_hand(
        model,
        weights.networks,
        portrait,
        vae=original.vae,
        unet=original.unet,
        written=original.text_encoder,
        drawn=styled.text_encoder,
    )
    host = EmbeddedHost(weights.checkpoint, weights.networks, [(lora, 1.0)], device="cpu")
    picture = host.follow(portrait, wish("x1", other), SMALL, progress=False).picture
    assert np.array_equal(picture, expected)
    assert not np.array_equal(picture, host.follow(portrait, Settings(enabled=True), SMALL, progress=False).picture)


def test_x2_is_the_published_one(weights, other: Path, lora: str, portrait: Portrait) -> None:
    model, styled = (load_checkpoint(path) for path in (weights.checkpoint, other))
    add_lora(model, lora)
    add_lora(styled, lora)
    expected = by_hand(
        model,
        weights.networks,
        portrait,
        vae=model.vae,
        unet=model.unet,
        written=styled.text_encoder,
        drawn=model.text_encoder,
    )
    host = EmbeddedHost(weights.checkpoint, weights.networks, [(lora, 1.0)], device="cpu")
    picture = host.follow(portrait, wish("x2", other), SMALL, progress=False).picture
    assert np.array_equal(picture, expected)
    assert not np.array_equal(picture, host.follow(portrait, wish("x1", other), SMALL, progress=False).picture)


def test_prompts_of_other_lengths(host: EmbeddedHost, other: Path, portrait: Portrait) -> None:
    """Their rows come in two calls, and so do the write passes."""
    longer = replace(SMALL, prompt="a woman " * 50, steps=1)
    pictures = [host.follow(portrait, wish(mode, other), longer, progress=False).picture for mode in ("x1", "x2")]
    assert not np.array_equal(pictures[0], pictures[1])


def filled(kind: type) -> int:
    """How many networks of this class hold weights."""
    gc.collect()
    networks = [one for one in gc.get_objects() if type(one) is kind]
    return sum(not next(network.parameters()).is_meta for network in networks)


def test_the_original_is_let_go_before_the_first_step_draws(
    host: EmbeddedHost, other: Path, portrait: Portrait
) -> None:
    kinds = [type(getattr(host.model, part)) for part in get_args(Part)]
    before, while_drawing = [filled(kind) for kind in kinds], []
    count = host.model.unet.conv_out.register_forward_hook(
        lambda *_: while_drawing.append([filled(kind) for kind in kinds])
    )
    try:
        host.follow(portrait, wish("x1", other), SMALL, progress=False)
    finally:
        count.remove()
    assert while_drawing == [before, before]


def test_a_part_is_what_the_whole_has_and_is_let_go(other: Path) -> None:
    whole = load_checkpoint(other)
    for part in get_args(Part):
        with loaded_part(other, part, "cpu", torch.float32) as network:
            expected = getattr(whole, part).state_dict()
            assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())
            assert not network.training
        assert all(tensor.is_meta for tensor in network.parameters())


@pytest.mark.parametrize("mode", ["x1", "x2"])
def test_what_is_missing_is_one_line(host: EmbeddedHost, weights, portrait: Portrait, mode: str) -> None:
    with pytest.raises(MissingFileError, match="--original FILE"):
        host.follow(portrait, Settings.from_mapping({"reference_pass": mode}), SMALL, progress=False)
    for file in (Path("nowhere.safetensors"), next(weights.networks.iterdir())):
        with pytest.raises(HelloMemeError) as caught:
            host.follow(portrait, wish(mode, file), SMALL, progress=False)
        assert "\n" not in str(caught.value)

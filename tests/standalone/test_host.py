"""The whole chain: two photos, a checkpoint and the networks' files to a picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lib_hellomeme.errors import FaceError, HostError, MissingFileError
from lib_hellomeme.settings import Settings
from lib_hellomeme.standalone import host as host_module
from lib_hellomeme.standalone.drawing import Drawing
from lib_hellomeme.standalone.host import PRECISIONS, EmbeddedHost, choose_device
from tests.random_weights import write_checkpoint

SMALL = Drawing("a woman", "a man", steps=2, cfg=3.0, seed=3, width=128, height=128)
ON = Settings(enabled=True)


@pytest.fixture(autouse=True)
def _faces_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding faces takes longer than everything else here."""
    known = READ

    def read(settings, reference, driving, models):
        key = (settings.face_box, reference.tobytes(), driving.tobytes())
        if key not in known:
            known[key] = read_portrait(settings, reference, driving, models)
        return known[key]

    read_portrait = host_module.read_portrait
    monkeypatch.setattr(host_module, "read_portrait", read)


READ: dict = {}


def drawn(host: EmbeddedHost, reference, driving, settings=ON, drawing=SMALL) -> np.ndarray:
    return host.reenact(reference, driving, settings, drawing, progress=False).picture


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


def test_same_seed_same_picture_and_everything_matters(host, faces):
    pictures = {
        "first": drawn(host, faces.reference, faces.mirrored),
        "plain": host.draw(SMALL, progress=False),
        "other driver": drawn(host, faces.reference, faces.reference),
        "other reference": drawn(host, faces.mirrored, faces.mirrored),
        "other seed": drawn(host, faces.reference, faces.mirrored, drawing=Drawing(**{**vars(SMALL), "seed": 4})),
    }
    assert pictures["first"].shape == (128, 128, 3)
    assert np.array_equal(drawn(host, faces.reference, faces.mirrored), pictures["first"])
    assert len({picture.tobytes() for picture in pictures.values()}) == len(pictures)


@pytest.mark.parametrize(
    "wish",
    [
        {"reference_weight": 0.5},
        {"reference_weight": 0.0},
        {"pose_weight": 0.0},
        {"expression_weight": 0.0},
        {"start": 0.5},
        {"end": 0.5},
        {"fit": "stretch"},
    ],
)
def test_every_option_changes_the_picture(host, faces, wish):
    driving = np.ascontiguousarray(faces.mirrored[40:])  # of another shape, so that fits differ
    pictures = [drawn(host, driving, faces.reference, settings) for settings in (ON, ON.changed(**wish))]
    assert not np.array_equal(pictures[0], pictures[1])


def test_the_checkpoint_is_left_as_it_was(host, faces):
    weights = {name: tensor.clone() for name, tensor in host.model.unet.state_dict().items()}
    plain = host.draw(SMALL, progress=False)
    drawn(host, faces.reference, faces.mirrored)
    assert hooks(host.model.unet) == 0
    assert all(torch.equal(tensor, weights[name]) for name, tensor in host.model.unet.state_dict().items())
    assert np.array_equal(host.draw(SMALL, progress=False), plain)


def test_an_interrupt_leaves_nothing_behind(host, faces):
    plain = host.draw(SMALL, progress=False)
    calls = []

    def interrupt(module, args, output) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    handle = host.model.unet.conv_out.register_forward_hook(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            drawn(host, faces.reference, faces.mirrored)
    finally:
        handle.remove()
    assert hooks(host.model.unet) == 0
    assert np.array_equal(host.draw(SMALL, progress=False), plain)


@pytest.mark.parametrize(("width", "height"), [(192, 128), (128, 200), (72, 136)])
def test_any_size_that_webuis_allow(host, faces, width, height):
    picture = drawn(
        host, faces.reference, faces.mirrored, drawing=Drawing(steps=1, cfg=2.0, width=width, height=height)
    )
    assert picture.shape == (height, width, 3)


def test_prompts_of_any_length_and_scale_one(host, faces):
    long = Drawing(**{**vars(SMALL), "prompt": "a woman " * 50, "steps": 1})
    alone = Drawing(**{**vars(SMALL), "cfg": 1.0, "steps": 1})
    pictures = [drawn(host, faces.reference, faces.mirrored, drawing=one) for one in (long, alone)]
    assert not np.array_equal(pictures[0], pictures[1])


def test_a_reference_without_a_face_is_drawn_with_a_warning(host, faces):
    grey = np.full_like(faces.reference, 127)
    result = host.reenact(grey, faces.reference, ON, Drawing(steps=1, width=128, height=128), progress=False)
    assert any("no face" in warning for warning in result.portrait.warnings)
    with pytest.raises(FaceError, match="driving"):
        drawn(host, faces.reference, grey)


def test_missing_files_are_one_line(weights, faces, tmp_path):
    with pytest.raises(MissingFileError, match="--checkpoint"):
        EmbeddedHost(None)
    empty = EmbeddedHost(weights.checkpoint, tmp_path, device="cpu")
    with pytest.raises(MissingFileError, match="hm5c_reference"):
        drawn(empty, faces.reference, faces.mirrored)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_precision_and_other_weights_change_little_and_much(weights, host, faces, tmp_path, precision):
    half = EmbeddedHost(weights.checkpoint, weights.networks, device="cpu", precision=precision)
    exact = drawn(host, faces.reference, faces.mirrored).astype(float)
    rounded = drawn(half, faces.reference, faces.mirrored)
    assert {parameter.dtype for parameter in half.model.unet.parameters()} == {PRECISIONS[precision]}
    other = EmbeddedHost(write_checkpoint(tmp_path / "other.safetensors", seed=1), weights.networks, device="cpu")
    another = drawn(other, faces.reference, faces.mirrored)
    assert 0 < np.abs(exact - rounded).mean() < np.abs(exact - another).mean() / 5


def test_devices():
    assert choose_device("cpu").type == "cpu"
    for name in ("nonsense", "cuda:99"):
        with pytest.raises(HostError, match="no device"):
            choose_device(name)

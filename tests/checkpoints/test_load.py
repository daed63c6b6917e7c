"""Weight files as users have them: whole, narrow, half precision, damaged, of another kind, dangerous."""

import gc
import os
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lib_hellomeme.checkpoints.layouts import LAYOUTS, build_on_meta
from lib_hellomeme.checkpoints.load import identify, load_network, placed, read_state_dict, recognise
from lib_hellomeme.errors import CheckpointError, MissingFileError
from lib_hellomeme.networks.animatediff import AnimateDiffAdapter
from lib_hellomeme.networks.clip_vision import ClipVision
from lib_hellomeme.networks.control import ControlBase, ControlProjection, ConvolutionProjector, STKCrossAttentionV4
from lib_hellomeme.networks.control_v3 import ControlV3, control_v1, control_v2
from lib_hellomeme.networks.motion import KnittedMotion, MotionAdapter
from lib_hellomeme.networks.pd_fgc import PdfgcEncoder
from lib_hellomeme.networks.reference import KnittedReference, KnittedReferenceV5, ReferenceAdapter, STKReference
from tests.goldens_format import published_tensors, seed_weights
from tests.networks.test_third_party import original_names

NARROW = (32, 64, 128, 128)

NARROW_NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "hm_reference": partial(ReferenceAdapter, NARROW, layer=KnittedReference, up_levels=(1, 2, 3), encoder=True),
    "hm2_reference": partial(ReferenceAdapter, NARROW, layer=KnittedReference, up_levels=(1, 2, 3)),
    "hm3_reference": partial(ReferenceAdapter, NARROW, layer=KnittedReference),
    "hm5_reference": partial(ReferenceAdapter, NARROW, layer=partial(KnittedReferenceV5, time_width=128)),
    "hm5b_reference": partial(ReferenceAdapter, NARROW),
    "hm_control": partial(control_v1, "arkit", NARROW, context_width=64, stem=16),
    "hm_control2": partial(control_v1, "pdfgc", NARROW, context_width=64, stem=16),
    "hm2_control": partial(control_v2, "arkit", NARROW, context_width=64, stem=16),
    "hm2_control2": partial(control_v2, "pdfgc", NARROW, context_width=64, stem=16),
    "hm3_control_mix": partial(ControlV3, NARROW, context_width=64, stem=16),
    "hm_control_base": partial(ControlBase, NARROW, context_width=64, block=STKCrossAttentionV4),
    "hm5_control_base": partial(ControlBase, NARROW, context_width=64),
    "hm4_control_proj": partial(ControlProjection, NARROW, projector=ConvolutionProjector),
    "hm5_control_proj": partial(ControlProjection, NARROW),
    "hm3_motion": partial(MotionAdapter, NARROW, layer=partial(KnittedMotion, time_width=128)),
    "hm5_motion": partial(MotionAdapter, NARROW),
    "animatediff": partial(AnimateDiffAdapter, NARROW, max_frames=24),
    "animatediff_mid": partial(AnimateDiffAdapter, NARROW, max_frames=24, mid_block=True),
    "pd_fgc_motion": PdfgcEncoder,
    "clip_vision": partial(ClipVision, width=32, inner_width=64, embedding_width=48),
}


def narrow_adapter() -> nn.Module:
    adapter = ReferenceAdapter(NARROW)
    seed_weights(adapter)
    return adapter


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    return dict(network.state_dict())


@pytest.fixture
def adapter_file(tmp_path: Path) -> Path:
    save_file(tensors_of(narrow_adapter()), tmp_path / "any name.safetensors")
    return tmp_path / "any name.safetensors"


@pytest.mark.parametrize(
    "name", [name for name in LAYOUTS if name not in ("animatediff", "animatediff_mid", "clip_vision")]
)
def test_published_tensors_are_recognised_and_built(name):
    shapes = published_tensors(name)
    layout = recognise(shapes)
    assert layout.name == name
    built = build_on_meta(layout, shapes).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in built.items()} == shapes


def test_a_narrow_file_is_loaded_whatever_its_name(adapter_file):
    network = load_network(adapter_file, ["hm5b_reference"])
    expected = tensors_of(narrow_adapter())
    assert network.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("wrap", [lambda tensors: tensors, lambda tensors: {"state_dict": tensors, "epoch": 3}])
@pytest.mark.parametrize("old_format", [False, True])
def test_torch_files_without_code_are_loaded(tmp_path, wrap, old_format):
    expected = tensors_of(narrow_adapter())
    torch.save(wrap(expected), tmp_path / "a.bin", _use_new_zipfile_serialization=not old_format)
    loaded = load_network(tmp_path / "a.bin").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_stored_precision_stays_and_each_copy_has_the_wanted_one(tmp_path, stored):
    save_file(
        {name: tensor.to(stored) for name, tensor in tensors_of(narrow_adapter()).items()}, tmp_path / "a.safetensors"
    )
    network = load_network(tmp_path / "a.safetensors")
    for wanted in (torch.bfloat16, torch.float32):
        copy = placed(network, "cpu", wanted)
        assert {parameter.dtype for parameter in copy.parameters()} == {wanted}
        assert {parameter.dtype for parameter in network.parameters()} == {stored}
    for name, tensor in placed(network, "cpu", torch.float32).state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name].float())


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells what is mapped")
def test_stored_tensors_stay_in_their_file(adapter_file):
    network = load_network(adapter_file)
    assert str(adapter_file) in Path("/proc/self/maps").read_text()
    del network
    gc.collect()
    assert str(adapter_file) not in Path("/proc/self/maps").read_text()


def test_a_copy_keeps_buffers_of_whole_numbers(tmp_path):
    save_file(tensors_of(PdfgcEncoder()), tmp_path / "a.safetensors")
    copy = placed(load_network(tmp_path / "a.safetensors"), "cpu", torch.bfloat16)
    assert {str(buffer.dtype) for buffer in copy.buffers()} == {"torch.bfloat16", "torch.int64"}


def test_identify_reads_the_header_alone(adapter_file):
    assert identify(adapter_file).name == "hm5b_reference"


class Malicious:
    def __reduce__(self):
        return os.system, ("echo never run > /tmp/hellomeme_never_run",)


def refusal(path: Path, *arguments) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_network(path, *arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


def test_a_pickle_with_code_is_refused(tmp_path):
    torch.save({"a": Malicious()}, tmp_path / "a.ckpt")
    (tmp_path / "b.bin").write_bytes(pickle.dumps(Malicious(), protocol=2))
    for name in ("a.ckpt", "b.bin"):
        assert "code" in refusal(tmp_path / name)
    assert not Path("/tmp/hellomeme_never_run").exists()


def test_no_file(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(MissingFileError):
            load_network(path)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "LFS"),
        (b"hello", ""),
        (bytes(range(256)) * 9, ""),
        (b"\xff" * 8 + b"{}", "damaged"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_what_is_no_weight_file(tmp_path, content, word, suffix):
    (tmp_path / f"a{suffix}").write_bytes(content)
    assert word in refusal(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("kept", [0.01, 0.3, 0.999])
def test_half_downloaded(adapter_file, tmp_path, kept):
    torch.save(read_state_dict(adapter_file), tmp_path / "whole.bin")
    for whole in (adapter_file, tmp_path / "whole.bin"):
        content = whole.read_bytes()
        half = tmp_path / f"half{whole.suffix}"
        half.write_bytes(content[: int(len(content) * kept)])
        refusal(half)
        with pytest.raises(CheckpointError):
            identify(half)


def saved(path: Path, **changes: Tensor | None) -> Path:
    tensors = {**tensors_of(narrow_adapter()), **{name.replace("__", "."): value for name, value in changes.items()}}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path / "changed.safetensors")
    return path / "changed.safetensors"


NAME = "reference_modules_up.0.attn.attnx.to_q.weight"


def test_a_missing_tensor_is_named(tmp_path):
    assert f"lacks the tensor {NAME}" in refusal(saved(tmp_path, **{NAME: None}))


def test_an_extra_tensor_is_named(tmp_path):
    assert "unknown tensor surplus" in refusal(saved(tmp_path, surplus=torch.zeros(3)))


def test_a_wrong_shape_is_named(tmp_path):
    message = refusal(saved(tmp_path, **{NAME: torch.zeros(128, 127)}))
    assert NAME in message
    assert "(128, 127)" in message
    assert "(128, 128)" in message


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_nan_and_infinity_are_refused(tmp_path, bad, dtype):
    tensor = torch.zeros(128, 128, dtype=dtype)
    tensor[5, 7] = bad
    assert NAME in refusal(saved(tmp_path, **{NAME: tensor}))


def test_wrong_dtypes_are_refused(tmp_path):
    assert "int64" in refusal(saved(tmp_path, **{NAME: torch.zeros(128, 128, dtype=torch.int64)}))


def test_another_generation_is_named(adapter_file):
    message = refusal(adapter_file, ["hm5_control_base"])
    assert "v5b/v5c reference adapter" in message
    assert "v5 control network" in message


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        ("model.diffusion_model.input_blocks.0.0.weight", "checkpoint"),
        ("time_embedding.linear_1.weight", "UNet"),
        ("lora_unet_down_blocks_0.lora_up.weight", "LoRA"),
        ("something.weight", "unknown"),
    ],
)
def test_foreign_files_are_named(tmp_path, tensor, kind):
    save_file({tensor: torch.zeros(2, 2)}, tmp_path / "x.safetensors")
    assert kind in refusal(tmp_path / "x.safetensors")


def test_a_list_of_tensors_is_no_state_dict(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "x.bin")
    assert "named tensors" in refusal(tmp_path / "x.bin")


def test_layers_of_a_loaded_adapter_compute(adapter_file):
    adapter = load_network(adapter_file)
    assert isinstance(adapter, ReferenceAdapter)
    layer = adapter.sites()["up.3"]
    assert isinstance(layer, STKReference)
    hidden = torch.randn(2, 64, 4, 6)
    assert torch.isfinite(layer(hidden, hidden)).all()


@pytest.mark.parametrize("name", LAYOUTS)
def test_narrow_networks_of_every_layout_are_built_from_their_tensors(name):
    network = NARROW_NETWORKS[name]()
    shapes = {tensor: value.shape for tensor, value in network.state_dict().items()}
    layout = recognise(shapes)
    assert layout.name == name
    built = build_on_meta(layout, shapes).state_dict()
    assert {tensor: value.shape for tensor, value in built.items()} == shapes


def test_animatediffs_original_naming_is_loaded(tmp_path):
    adapter = AnimateDiffAdapter(NARROW, max_frames=24, mid_block=True)
    seed_weights(adapter)
    original = {name: value for ours, value in tensors_of(adapter).items() for name in original_names(ours)}
    torch.save({"state_dict": {f"module.{name}": value for name, value in original.items()}}, tmp_path / "mm.ckpt")
    assert identify(tmp_path / "mm.ckpt").name == "animatediff_mid"
    loaded = load_network(tmp_path / "mm.ckpt").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in tensors_of(adapter).items())


def test_an_old_clip_file_is_loaded(tmp_path):
    tensors = tensors_of(NARROW_NETWORKS["clip_vision"]())
    tensors["vision_model.embeddings.position_ids"] = torch.arange(257)[None]
    save_file(tensors, tmp_path / "model.safetensors")
    assert isinstance(load_network(tmp_path / "model.safetensors"), ClipVision)

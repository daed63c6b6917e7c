"""Files are found by what is in them; where two published files share a layout, by their names."""

import itertools
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lib_hellomeme.checkpoints.catalog import FILES, GENERATIONS, Found, files_of, find, need
from lib_hellomeme.checkpoints.layouts import LAYOUTS, build_on_meta
from lib_hellomeme.errors import CheckpointError, MissingFileError
from tests.goldens_format import published_tensors

V5C = ["hm5c_reference", "hm5_control_base", "hm5c_control_proj"]


@cache
def narrow_tensors(layout: str) -> dict[str, Tensor]:
    """A file of this layout with narrow widths, by shrinking every published axis of 320 and more."""
    network = build_on_meta(LAYOUTS[layout], {})
    return {
        name: torch.zeros([size // 10 if size % 320 == 0 else size for size in tensor.shape])
        for name, tensor in network.state_dict().items()
    }


def write(path: Path, layout: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(narrow_tensors(layout), path)
    return path


def test_every_network_of_the_catalog_can_be_loaded_and_every_layout_is_in_the_catalog():
    assert {file.layout for file in FILES.values()} - {None} == LAYOUTS.keys()


PUBLISHED = [file for file in FILES.values() if file.layout and file.layout.startswith(("hm", "pd_fgc"))]


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.key)
def test_the_catalogs_layouts_are_the_published_ones(file):
    built = build_on_meta(LAYOUTS[file.layout], {}).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in built.items()} == published_tensors(file.key)


def test_generations_are_made_of_their_parts():
    for name, kind in itertools.product(GENERATIONS, ("pdfgc", "arkit")):
        keys = [file.key for file in files_of(name, kind)]
        assert "reference" in keys[0]
        assert (keys[-1] == "pd_fgc_motion") == (kind == "pdfgc")
        control = [key for key in keys[1:] if key != "pd_fgc_motion"]
        assert all("control" in key for key in control)
        assert len(control) == (1 if name in ("v1", "v2", "v3") else 2)
    assert [file.key for file in files_of("v5c", "arkit")] == V5C
    assert [file.key for file in files_of("v5b", video=True)][-1] == "hm5_motion"


def test_v5c_has_no_videos():
    with pytest.raises(CheckpointError, match="v5c has no motion network"):
        files_of("v5c", video=True)


def test_a_unique_layout_is_found_under_any_name(tmp_path):
    path = write(tmp_path / "deep" / "er" / "whatever.safetensors", "hm5_control_base")
    assert find(tmp_path) == {"hm5_control_base": Found(path, True)}


@pytest.mark.parametrize("name", ["HM5C-reference.safetensors", "hm5c_reference/diffusion_pytorch_model.safetensors"])
def test_a_shared_layout_goes_by_its_name(tmp_path, name):
    path = write(tmp_path / name, "hm5b_reference")
    assert find(tmp_path) == {"hm5c_reference": Found(path, True)}


def test_a_shared_layout_without_a_name_stands_for_all(tmp_path):
    path = write(tmp_path / "x.safetensors", "hm5b_reference")
    assert find(tmp_path) == {"hm5b_reference": Found(path, False), "hm5c_reference": Found(path, False)}
    named = write(tmp_path / "hm5b_reference.safetensors", "hm5b_reference")
    assert find(tmp_path) == {"hm5b_reference": Found(named, True), "hm5c_reference": Found(path, False)}


def test_content_beats_a_wrong_name(tmp_path):
    path = write(tmp_path / "hm_control.safetensors", "hm5_control_base")
    assert find(tmp_path) == {"hm5_control_base": Found(path, True)}


def test_the_longest_key_in_a_name_counts(tmp_path):
    write(tmp_path / "hm3_reference_copy_of_hm4_reference.safetensors", "hm3_reference")
    (found,) = find(tmp_path)
    assert found in ("hm3_reference", "hm4_reference")
    path = write(tmp_path / "sub" / "hm2_animatediff_frame12.safetensors", "animatediff")
    assert find(tmp_path / "sub") == {"hm2_animatediff_frame12": Found(path, True)}


def test_other_files_are_passed_over(tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"{}")
    (tmp_path / "empty.bin").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("hm5c_reference")
    save_file({"model.diffusion_model.x": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert find(tmp_path, tmp_path / "nowhere") == {}


def test_face_models_are_found_by_name(tmp_path):
    path = tmp_path / "hello_3dmm.onnx"
    path.write_bytes(b"onnx")
    assert find(tmp_path) == {"hello_3dmm": Found(path, True)}


def test_a_replaced_file_is_looked_at_again(tmp_path):
    path = write(tmp_path / "x.safetensors", "hm5_control_base")
    assert find(tmp_path)
    path.write_bytes(b"{}")
    assert find(tmp_path) == {}


def test_what_is_missing_is_named_with_its_source(tmp_path):
    write(tmp_path / "hm5c_reference.safetensors", "hm5b_reference")
    with pytest.raises(MissingFileError, match=r"hm5_control_base .*huggingface.co/songkey/hm5_control_base"):
        need(find(tmp_path), files_of("v5c", "arkit"))
    write(tmp_path / "a.safetensors", "hm5_control_base")
    write(tmp_path / "b.safetensors", "hm5_control_proj")
    assert set(need(find(tmp_path), files_of("v5c", "arkit"))) == set(V5C)

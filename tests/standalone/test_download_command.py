"""`python -m lib_hellomeme download` against a hub on this machine."""

import pytest
from safetensors.torch import save

from lib_hellomeme.checkpoints.catalog import FILES
from lib_hellomeme.standalone.command_line import main
from lib_hellomeme.standalone.download_command import wanted
from tests.checkpoints.hub import Hub, answers, drops, running
from tests.checkpoints.test_catalog import narrow_tensors, write


@pytest.fixture
def hub(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "HELLOMEME_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running(Hub(save(narrow_tensors("hm2_reference")))) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield hub


def test_a_file_is_downloaded_with_a_bar_and_not_a_second_time(hub, tmp_path, capsys):
    command = ["download", "hm2_reference", "--models", str(tmp_path / "models")]
    assert main(command) == 0
    path = tmp_path / "models" / "hm2_reference.safetensors"
    assert path.read_bytes() == hub.content
    shown = capsys.readouterr()
    assert str(path) in shown.out
    assert "hm2_reference.safetensors: 100%" in shown.err
    asked = len(hub.requests)
    assert main(command) == 0
    assert capsys.readouterr().out == f"hm2_reference is there: {path}\n"
    assert len(hub.requests) == asked
    sent = hub.sent
    assert main([*command, "--again"]) == 0
    assert len(hub.requests) > asked
    assert hub.sent <= sent + len(hub.content)
    assert path.read_bytes() == hub.content


def test_a_file_dropped_in_by_hand_is_accepted(hub, tmp_path):
    write(tmp_path / "found somewhere.safetensors", "hm2_reference")
    assert main(["download", "hm2_reference", "--models", str(tmp_path)]) == 0
    assert hub.requests == []


def test_waiting_is_shown(hub, tmp_path, capsys):
    hub.turns = [drops(1000)]
    assert main(["download", "hm2_reference", "--models", str(tmp_path)]) == 0
    assert "trying again in 1 s" in capsys.readouterr().err


def test_a_failure_is_one_line(hub, tmp_path, capsys):
    hub.turns = [answers(403)]
    assert main(["download", "v5c", "--models", str(tmp_path)]) == 1
    assert "refuses songkey/hm5c_reference" in capsys.readouterr().err.splitlines()[-1]
    assert main(["download", "v5c", "--video", "--models", str(tmp_path)]) == 1
    assert "v5c has no motion network" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["download", "v6"])


def test_a_generation_is_all_its_files():
    keys = [file.key for file in wanted(["v5b", "v5c", "pd_fgc_motion", "v5c"], "arkit", False)]
    assert keys == [
        "hm5b_reference",
        "hm5_control_base",
        "hm5_control_proj",
        "hm5c_reference",
        "hm5c_control_proj",
        "pd_fgc_motion",
    ]
    assert wanted(["v4"], "pdfgc", True)[-1] is FILES["hm4_motion"]

"""The panel's download beside a webui that goes on, from a hub on this machine."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lib_hellomeme.checkpoints import download as download_module
from lib_hellomeme.checkpoints.catalog import FILES
from lib_hellomeme.checkpoints.download import HUB
from lib_hellomeme.settings import Settings
from lib_hellomeme.webui import downloads, weights
from tests.checkpoints.hub import Hub, answers, drops, running
from tests.checkpoints.test_download import NAME
from tests.checkpoints.test_download import weights as weight_file

FILE = FILES["hm2_reference"]
CHOSEN = ("v2", "arkit", False)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in which hm2_reference alone is missing."""
    for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HELLOMEME_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download_module, "CHUNK", 1 << 12)
    monkeypatch.setattr(downloads, "INTERVAL", 0.01)
    monkeypatch.setattr(downloads, "_present", None)
    for module in (downloads, weights):
        monkeypatch.setattr(module, "folder", lambda: tmp_path)
    (tmp_path / "hm2_control.safetensors").write_bytes(weight_file("hm2_control"))
    return tmp_path


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running(Hub(weight_file())) as hub:
        yield hub


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_what_is_missing_is_listed_with_size_and_licence(models: Path) -> None:
    (line,) = downloads.listed(*CHOSEN).split("</p>")[:-1]
    assert line.startswith("<p>hm2_reference.safetensors: 126 MB, v2: looks of the reference. Licence: MIT")
    assert "image_encoder.safetensors: 2530 MB" in downloads.listed("v2", "arkit", optional=True)
    assert "pd_fgc_motion.safetensors" in downloads.listed("v2", "pdfgc")


def test_a_press_downloads_what_is_missing_and_tells_how_it_stands(models: Path, hub: Hub) -> None:
    told = list(downloads.press(*CHOSEN, hub.address))
    assert told[0].startswith("<p>")
    assert "<progress" in told[0]
    assert told[-1] == "<p>Downloaded: the next picture uses it.</p>"
    assert (models / NAME).read_bytes() == weight_file()
    assert downloads.listed(*CHOSEN) == "<p>Nothing is missing.</p>"
    assert list(downloads.press(*CHOSEN, hub.address)) == ["<p>Nothing is missing.</p>"]


def test_a_failure_is_one_line(models: Path, hub: Hub) -> None:
    hub.turns = [answers(403)]
    last = list(downloads.press(*CHOSEN, hub.address))[-1]
    assert last.startswith("<p>127.0.0.1")
    assert "refuses songkey/hm2_reference" in last
    assert last.count("<p>") == 1
    assert not (models / NAME).exists()


def test_a_place_without_a_connection_is_one_line(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "says to stay offline" in list(downloads.press(*CHOSEN, ""))[-1]


def test_a_defect_is_told_and_its_traceback_is_in_the_console(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(downloads, "download", lambda *given, **named: 1 / 0)
    assert "ZeroDivisionError" in list(downloads.press(*CHOSEN, ""))[-1]
    assert "Traceback" in capsys.readouterr().err


def test_stopping_ends_a_wait_and_the_next_press_goes_on(models: Path, hub: Hub) -> None:
    hub.turns = [drops(len(weight_file()) // 2), answers(429, Retry_After="100")]
    shown = downloads.press(*CHOSEN, hub.address)
    next(shown)
    wait_for(lambda: "trying again in 100 s" in downloads._present.said)  # type: ignore[union-attr]
    assert downloads.stop() == "<p>Stopping.</p>"
    assert list(shown)[-1] == "<p>Stopped; the next download goes on where this one was.</p>"
    assert downloads.stop() == "<p>No download is running.</p>"
    before = hub.sent
    list(downloads.press(*CHOSEN, hub.address))
    assert (models / NAME).read_bytes() == weight_file()
    assert hub.sent - before < len(weight_file()) * 0.6


def test_stopping_ends_a_transfer(models: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    hear = downloads.Download._hear

    def slow(self: Any, progress: Any) -> None:
        hear(self, progress)
        if progress.done:
            begun.set()
            go_on.wait(10)

    monkeypatch.setattr(downloads.Download, "_hear", slow)
    running = downloads.start([FILE], hub.address)
    assert begun.wait(10)
    assert 0 < (running.share or 0) < 1
    assert running.said.startswith(f"{NAME}: 0 of")
    running.stop()
    go_on.set()
    running.join(10)
    assert not running.is_alive()
    assert (models / f"{NAME}.part").exists()
    assert not (models / NAME).exists()


def test_a_second_press_shows_the_running_download(models: Path, hub: Hub) -> None:
    hub.turns = [answers(429, Retry_After="100")]
    first, second = downloads.press(*CHOSEN, hub.address), downloads.press(*CHOSEN, hub.address)
    next(first)
    running = downloads._present
    next(second)
    assert downloads._present is running
    downloads.stop()
    assert list(first)[-1] == list(second)[-1]
    assert len(hub.asked("Range")) <= 1


def test_what_a_download_writes_makes_no_network_load_again(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(weights, "load_networks", lambda generation, *given, **named: loaded.append(generation))
    weights._loaded.cache_clear()
    weights.networks_of(Settings(generation="v2"))
    (models / f"{NAME}.part").write_bytes(b"half")
    weights.networks_of(Settings(generation="v2"))
    assert loaded == ["v2"]
    (models / NAME).write_bytes(weight_file())
    weights.networks_of(Settings(generation="v2"))
    assert loaded == ["v2", "v2"]
    weights._loaded.cache_clear()


class Widget:
    """Remembers what it was made with and what is done with it."""

    made: list[Widget]

    def __init__(self, kind: str, *values: Any, **options: Any) -> None:
        self.kind, self.options = kind, options
        self.value = values[0] if values else options.get("value")
        self.functions: dict[str, Any] = {}
        Widget.made.append(self)

    def __enter__(self) -> Widget:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def click(self, function: Any, inputs: list, outputs: list, **options: Any) -> None:
        self.functions["click"] = function

    def change(self, function: Any, inputs: list, outputs: list, **options: Any) -> None:
        self.functions["change"] = function


@pytest.mark.parametrize("queue", [True, False])
def test_the_group_answers_with_and_without_a_queue(
    models: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, queue: bool
) -> None:
    Widget.made = []
    gradio: Any = ModuleType("gradio")
    for kind in ("Accordion", "HTML", "Checkbox", "Textbox", "Row", "Button"):
        setattr(gradio, kind, lambda *values, kind=kind, **options: Widget(kind, *values, **options))
    modules: Any = ModuleType("modules")
    modules.shared = SimpleNamespace(cmd_opts=SimpleNamespace(no_gradio_queue=not queue))
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    monkeypatch.setitem(sys.modules, "modules", modules)
    options = {"generation": Widget("Dropdown", value="v2"), "expression": Widget("Dropdown", value="arkit")}
    downloads.build("txt2img", options)
    made = {widget.options.get("elem_id", widget.kind): widget for widget in Widget.made}
    assert made["HTML"].value == downloads.listed(*CHOSEN)
    assert made["txt2img_hellomeme_mirror"].options["placeholder"] == HUB
    for widget in (*options.values(), made["txt2img_hellomeme_optional"]):
        assert widget.functions["change"](*CHOSEN) == downloads.listed(*CHOSEN)
    answer = made["txt2img_hellomeme_download"].functions["click"](*CHOSEN, hub.address)
    first = next(answer) if queue else answer
    assert first.startswith("<p>")
    assert downloads._present is not None
    downloads._present.join(10)
    assert (models / NAME).exists()
    assert made["txt2img_hellomeme_stop"].functions["click"]() == "<p>No download is running.</p>"

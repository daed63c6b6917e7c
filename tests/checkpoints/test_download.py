"""Weight files come whole or not at all, from a hub on this machine that does everything wrong."""

import errno
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from email.utils import formatdate
from functools import cache
from io import FileIO
from itertools import pairwise
from pathlib import Path
from time import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from lib_hellomeme.checkpoints import download as module
from lib_hellomeme.checkpoints.catalog import FILES, find
from lib_hellomeme.checkpoints.download import Progress, address, download, sha256_of
from lib_hellomeme.errors import DownloadError
from tests.checkpoints.hub import Hub, answers, becomes, drops, running
from tests.checkpoints.test_catalog import narrow_tensors

FILE = FILES["hm2_reference"]
NAME = "hm2_reference.safetensors"
OLD = b"the file of before"


@cache
def weights(layout: str = "hm2_reference", value: float = 0.0) -> bytes:
    """A weight file; those of one layout are equally long."""
    return save({name: torch.full_like(tensor, value) for name, tensor in narrow_tensors(layout).items()})


HALF = len(weights()) // 2


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HELLOMEME_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(module, "CHUNK", 1 << 14)


@pytest.fixture
def hub():
    with running(Hub(weights())) as hub:
        yield hub


class Downloader:
    """`download` into a folder, with its pauses and its progress kept."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub, self.folder = hub, folder
        self.target = folder / NAME
        self.part = folder / f"{NAME}.part"
        self.pauses: list[float] = []
        self.progress: list[Progress] = []

    def __call__(self, key: str = FILE.key, **options) -> Path:
        options = {"mirror": self.hub.address, "progress": self.progress.append} | options
        return download(FILES[key], self.folder, sleep=self.pauses.append, **options)

    def fails(self, match: str, **options) -> str:
        with pytest.raises(DownloadError, match=match) as caught:
            self(**options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def stops_after(self, size: int) -> None:
        """As if the program had been ended there."""

        def stop(progress: Progress) -> None:
            if progress.done >= size:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self(progress=stop)

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def check(self, content: bytes) -> None:
        assert self.target.read_bytes() == content
        assert self.names == [NAME, f"{NAME}.sha256"]
        assert (self.folder / f"{NAME}.sha256").read_text() == f"{hashlib.sha256(content).hexdigest()}  {NAME}\n"


@pytest.fixture
def fetch(hub, tmp_path):
    return Downloader(hub, tmp_path)


def test_a_file_comes_with_its_sha256_and_is_found(hub, fetch):
    assert fetch() == fetch.target
    fetch.check(weights())
    assert list(find(fetch.folder)) == ["hm2_reference"]
    assert hub.requests[0][0] == "/songkey/hm2_reference/resolve/main/diffusion_pytorch_model.safetensors"


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_sha256sum_reads_what_is_kept(fetch):
    fetch()
    subprocess.run(["sha256sum", "--check", "--strict", f"{NAME}.sha256"], cwd=fetch.folder, check=True)


def test_progress_counts_bytes_and_seconds(fetch):
    fetch()
    first, *_, last = fetch.progress
    assert first == Progress(NAME, 0, len(weights()), None)
    assert (last.done, last.total, last.seconds_left) == (len(weights()), len(weights()), 0)
    assert all(a.done < b.done and (b.seconds_left or 0) >= 0 for a, b in pairwise(fetch.progress))


def test_broken_connections_are_gone_on_with(hub, fetch):
    hub.turns = [drops(HALF), drops(1000)]
    fetch()
    fetch.check(weights())
    assert hub.asked("Range") == ["", f"bytes={HALF}-", f"bytes={HALF + 1000}-"]
    assert hub.sent == len(weights())
    assert fetch.pauses == [1, 2]
    note = f"sent {HALF + 1000} of {len(weights())} bytes; trying again in 2 s"
    assert any(note in progress.note for progress in fetch.progress)


def test_a_connection_that_falls_silent_is_given_up(hub, fetch, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", (1.0, 0.1))
    hub.turns = [drops(HALF, silent=True)]
    fetch()
    fetch.check(weights())
    assert hub.asked("Range")[1]
    assert any("the connection to 127.0.0.1:" in progress.note for progress in fetch.progress)


def test_a_killed_download_is_gone_on_with(hub, fetch):
    fetch.stops_after(HALF)
    assert fetch.names == [f"{NAME}.part", f"{NAME}.part.json"]
    assert HALF <= fetch.part.stat().st_size < len(weights())
    fetch()
    fetch.check(weights())
    assert hub.asked("Range")[1] == f"bytes={HALF - HALF % module.CHUNK + module.CHUNK}-"
    assert hub.asked("If-Range")[1] == f'"{hashlib.md5(weights()).hexdigest()}"'


def test_a_download_killed_at_its_very_end_transfers_nothing_more(hub, fetch):
    fetch.stops_after(len(weights()))
    sent = hub.sent
    fetch()
    fetch.check(weights())
    assert hub.sent == sent


@pytest.mark.parametrize("checks_if_range", [True, False])
@pytest.mark.parametrize("redirects", [True, False])
def test_a_file_that_changes_in_between_starts_over(hub, fetch, redirects, checks_if_range):
    hub.redirects, hub.checks_if_range = redirects, checks_if_range
    hub.turns = [drops(HALF), becomes(weights(value=1.0))]
    fetch()
    fetch.check(weights(value=1.0))


def test_a_file_that_changes_between_two_runs_starts_over(hub, fetch):
    fetch.stops_after(HALF)
    hub.content = weights(value=1.0)
    fetch()
    fetch.check(weights(value=1.0))


def test_a_store_that_gives_its_files_other_etags_still_goes_on(hub, fetch):
    hub.etags = False  # the sha256 tells that it is the same file
    hub.turns = [drops(HALF)]
    fetch()
    fetch.check(weights())
    assert hub.asked("Range")[1]
    assert hub.asked("If-Range")[1] == ""
    assert hub.sent == len(weights())


def test_ignored_ranges_start_over(hub, fetch):
    hub.ranges = False
    hub.turns = [drops(HALF)]
    fetch()
    fetch.check(weights())
    assert hub.asked("Range")[1]
    assert hub.sent == len(weights()) + HALF


def test_nothing_is_gone_on_with_where_nothing_tells_that_it_is_the_same_file(hub, fetch):
    hub.redirects = hub.etags = False
    hub.turns = [drops(HALF)]
    fetch()
    fetch.check(weights())
    assert hub.asked("Range") == ["", ""]


def test_a_part_file_of_unknown_origin_is_not_gone_on_with(hub, fetch):
    fetch.part.write_bytes(b"?" * HALF)
    fetch()
    fetch.check(weights())
    assert hub.asked("Range") == [""]


def test_a_damaged_part_file_starts_over(hub, fetch):
    fetch.stops_after(HALF)
    fetch.part.write_bytes(b"?" * HALF)
    fetch()
    fetch.check(weights())
    assert fetch.pauses == [0]
    fetch.target.unlink()
    fetch.stops_after(HALF)
    fetch.part.write_bytes(b"?" * (len(weights()) + 5))
    fetch()
    fetch.check(weights())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(weights())), st.booleans(), st.booleans()), max_size=4))
def test_any_series_of_accidents_ends_with_the_right_file(accidents):
    with running(Hub(weights())) as hub, tempfile.TemporaryDirectory() as folder:
        for turn, (after, changes, ranges) in enumerate(accidents):

            def accident(hub: Hub, after=after, changes=changes, ranges=ranges, turn=turn) -> None:
                drops(after)(hub)
                hub.ranges = ranges
                hub.content = weights(value=float(turn)) if changes else hub.content

            hub.turns.append(accident)
        fetch = Downloader(hub, Path(folder))
        fetch(attempts=2 * len(accidents) + 1)
        fetch.check(hub.content)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_length_beyond_the_truth_is_noticed(hub, fetch, ranges):
    fetch.target.write_bytes(OLD)
    hub.redirects, hub.ranges, hub.too_long = False, ranges, 1000
    if ranges:  # asked for the rest, the server says that there is none: then it is whole
        fetch()
        fetch.check(weights())
    else:
        size = len(weights())
        fetch.fails(f"sent {size} of {size + 1000} bytes")
        assert fetch.target.read_bytes() == OLD


def test_a_length_below_the_truth_is_noticed(hub, fetch):
    fetch.target.write_bytes(OLD)
    hub.redirects, hub.too_long = False, -1000
    fetch.fails("not fully downloaded")
    assert fetch.target.read_bytes() == OLD
    assert fetch.names == [NAME]


def test_a_length_below_the_truth_is_mended_where_the_hub_tells_the_size(hub, fetch):
    hub.too_long = -1000
    hub.turns = [lambda hub: None, lambda hub: setattr(hub, "too_long", 0)]
    fetch()
    fetch.check(weights())


def test_more_than_the_announced_size_is_noticed(hub, fetch):
    fetch.target.write_bytes(OLD)
    hub.size = HALF
    fetch.fails(f"longer than the {HALF} bytes announced")
    assert fetch.names == [NAME]
    assert fetch.target.read_bytes() == OLD


def test_other_bytes_than_the_hub_has_are_refused(hub, fetch):
    fetch.target.write_bytes(OLD)
    hub.sha256 = "0" * 64
    fetch.fails("its sha256 begins .* in place of 00000000; check the mirror")
    assert fetch.names == [NAME]
    assert fetch.target.read_bytes() == OLD
    assert fetch.pauses == []


def test_the_stores_etag_is_no_sha256_but_that_of_a_hub_without_a_store_is(hub, fetch):
    hub.tag = lambda content: "a" * 64
    fetch()
    fetch.check(weights())
    fetch.target.write_bytes(OLD)
    hub.redirects = False
    fetch.fails("in place of aaaaaaaa")
    assert fetch.target.read_bytes() == OLD
    hub.tag = lambda content: hashlib.sha256(content).hexdigest()
    fetch()
    fetch.check(weights())


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (weights("hm5_control_proj"), "it is a HelloMeme v5/v5c control projection"),
        (weights()[:-1], "it is damaged or not fully downloaded"),
        (b"<!DOCTYPE html><title>Sign in</title>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        (b"", "it is empty"),
    ],
)
def test_another_file_is_refused_whatever_its_sha256(hub, fetch, content, fault):
    fetch.target.write_bytes(OLD)
    hub.content = content
    fetch.fails(fault)
    assert fetch.names == [NAME]
    assert fetch.target.read_bytes() == OLD


def test_a_web_page_leaves_what_is_there(hub, fetch):
    fetch.stops_after(HALF)
    size = fetch.part.stat().st_size
    hub.redirects, hub.content_type, hub.content = False, "text/html; charset=utf-8", b"Sign in, please"
    fetch.fails("sent a web page in place of songkey/hm2_reference/")
    assert fetch.part.stat().st_size == size


@pytest.mark.parametrize(
    ("status", "match"),
    [
        (401, r"refuses songkey/hm2_reference/.* \(401\): it may be gated"),
        (403, r"refuses songkey/hm2_reference/.* \(403\): it may be gated"),
        (404, r"has no songkey/hm2_reference/.* \(404\): check the mirror"),
        (400, r"answers 400 Bad Request"),
    ],
)
def test_a_refusal_is_one_line_at_once(hub, fetch, status, match):
    fetch.target.write_bytes(OLD)
    hub.turns = [answers(status)]
    line = fetch.fails(match)
    assert f"put it here as {fetch.target}" in line
    assert len(hub.requests) == 1
    assert fetch.pauses == []
    assert fetch.names == [NAME]


def test_a_refusal_in_the_middle_keeps_what_came(hub, fetch):
    hub.turns = [drops(HALF), answers(403)]
    fetch.fails("403")
    assert fetch.part.stat().st_size == HALF
    fetch()
    fetch.check(weights())


def test_too_many_requests_are_waited_out(hub, fetch):
    in_a_minute = formatdate(time() + 60, usegmt=True)
    hub.turns = [answers(429, Retry_After="7"), answers(429, Retry_After=in_a_minute), answers(429)]
    fetch()
    fetch.check(weights())
    assert fetch.pauses == [7, pytest.approx(60, abs=5), 4]


def test_nobody_waits_for_hours(hub, fetch):
    hub.turns = [answers(429, Retry_After="7200")]
    fetch.fails("asks to wait 120 minutes")
    assert fetch.pauses == []


def test_attempts_are_counted(hub, fetch):
    hub.turns = [answers(429)] * 3 + [answers(503)] * 9
    fetch.fails("answers 503 Service Unavailable, 6 times: try again later")
    assert fetch.pauses == [1, 2, 4, 8, 16]
    assert len(hub.requests) == 6


def test_a_hub_that_is_not_there_is_one_line(fetch):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        fetch.fails(r"cannot be reached \(ConnectionError\)", mirror=f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert fetch.pauses == [1, 2, 4, 8, 16]


def test_redirects_without_an_end_are_one_line(hub, fetch):
    hub.turns = [answers(302, Location="/again")] * 40
    fetch.fails("Exceeded 30 redirects")


def test_a_file_that_is_the_hubs_is_not_transferred_again(hub, fetch):
    fetch.target.write_bytes(weights())  # put there by hand
    fetch()
    fetch.check(weights())
    assert fetch.progress == []
    hub.content = weights(value=1.0)
    fetch()
    fetch.check(weights(value=1.0))


def test_a_full_disk_keeps_both_files(hub, fetch, monkeypatch):
    fetch.target.write_bytes(OLD)
    monkeypatch.setattr(module, "open", disk_of(HALF), raising=False)
    fetch.fails("there is no room on the disk for .*: free some and start again")
    assert fetch.target.read_bytes() == OLD
    assert 0 < fetch.part.stat().st_size <= HALF
    monkeypatch.delattr(module, "open")
    fetch()
    fetch.check(weights())
    assert hub.asked("Range")[-1]


def disk_of(size: int):
    """`open` on a disk where no part file grows beyond so many bytes."""

    class Limited(FileIO):
        def write(self, piece) -> int:
            if self.tell() + len(piece) > size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(piece)

    return lambda path, mode: Limited(path, mode) if path.suffix == ".part" else open(path, mode)


def test_a_disk_that_is_too_small_is_noticed_before(hub, fetch, monkeypatch):
    usage = shutil.disk_usage(fetch.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=HALF))
    fetch.fails("there is no room on the disk")
    assert not fetch.part.exists()


def test_a_folder_that_is_a_file_is_one_line(hub, tmp_path):
    (tmp_path / "models").write_bytes(b"")
    Downloader(hub, tmp_path / "models").fails("models.hm2_reference.safetensors cannot be written: ")


def test_a_file_in_use_is_one_line_and_nothing_is_lost(fetch, monkeypatch):
    """As on Windows, where networks that are loaded keep their files mapped."""
    fetch.target.write_bytes(OLD)
    replace = os.replace

    def refuse(source, target):
        if Path(target) == fetch.target:
            raise PermissionError(errno.EACCES, "Access is denied", str(target))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        fetch.fails("cannot be replaced .Access is denied.: close the webui")
    assert fetch.target.read_bytes() == OLD
    fetch()
    fetch.check(weights())


@pytest.mark.parametrize("name", ["HELLOMEME_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_means_no_request(hub, fetch, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    fetch.fails("says to stay offline")
    assert hub.requests == []
    monkeypatch.setenv(name, "0")
    fetch()
    fetch.check(weights())


def test_the_mirror_may_come_from_the_environment(hub, fetch, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", hub.address + "/")
    fetch(mirror=None)
    fetch.check(weights())


def test_addresses(monkeypatch):
    path = "songkey/hm2_reference/resolve/main/diffusion_pytorch_model.safetensors"
    assert address(FILE) == f"https://huggingface.co/{path}"
    monkeypatch.setenv("HF_ENDPOINT", "https://hf-mirror.com")
    assert address(FILE) == f"https://hf-mirror.com/{path}"
    assert address(FILE, "http://localhost:8000/hub/") == f"http://localhost:8000/hub/{path}"
    for wrong in ("hf-mirror.com", "ftp://x", "file:///etc", "https://"):
        with pytest.raises(DownloadError, match="is no web address"):
            address(FILE, wrong)


def test_a_password_in_the_mirror_is_not_shown(hub, fetch):
    hub.turns = [answers(403)]
    assert "secret" not in fetch.fails("403", mirror=hub.address.replace("//", "//me:secret@"))


def test_proxies_of_the_environment_are_used(hub, fetch, monkeypatch):
    monkeypatch.setenv("http_proxy", hub.address)
    hub.redirects = False
    fetch(mirror="http://hub.invalid")
    fetch.check(weights())


def test_of_two_downloads_at_once_one_is_told_to_wait(hub, fetch):
    first_may_end = threading.Event()
    second_told = []

    def progress(progress: Progress) -> None:
        if not second_told:
            second_told.append(fetch.fails("is being downloaded already"))
        first_may_end.set()

    fetch(progress=progress)
    assert first_may_end.is_set()
    assert second_told
    fetch.check(weights())


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
def test_another_process_holds_its_download_until_it_ends(fetch):
    lock = fetch.folder / f"{NAME}.lock"
    hold = f"import fcntl, time; f = open({str(lock)!r}, 'ab'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True)"
    with subprocess.Popen([sys.executable, "-Sc", f"{hold}; time.sleep(30)"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        fetch.fails("is being downloaded already")
        holder.kill()
        holder.wait()
    assert lock.exists()  # left behind by a process that was killed
    fetch()
    fetch.check(weights())


def test_torch_and_onnx_files_are_recognised_too(hub, fetch, tmp_path):
    torch.save(narrow_tensors("animatediff"), tmp_path / "made")
    hub.content = (tmp_path / "made").read_bytes()
    assert fetch("v3_sd15_mm").name == "v3_sd15_mm.ckpt"
    hub.content = b"\x08\x07 and so on"
    path = fetch("hello_3dmm")
    assert path.name == "hello_3dmm.onnx"
    assert sha256_of(path) == hashlib.sha256(hub.content).hexdigest()
    hub.content = b"no model"
    fetch.fails("it is no ONNX model", key="hello_3dmm")

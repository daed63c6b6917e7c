"""Published weight files from the hub, or from a mirror of it, into the folder of the models.

While NAME comes, its bytes lie in NAME.part, what the server said about them in NAME.part.json, and NAME.lock is held.
It gets its name when all of it is there, its sha256 is the hub's and it holds the network that the catalog says; until
then an older file of this name stays. NAME.sha256 remains beside it, as `sha256sum --check` reads it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, urlsplit

from lib_hellomeme.checkpoints.catalog import WeightFile
from lib_hellomeme.checkpoints.layouts import LAYOUTS
from lib_hellomeme.checkpoints.load import identify
from lib_hellomeme.errors import CheckpointError, DependencyError, DownloadError

if TYPE_CHECKING:
    from requests import Response

HUB = "https://huggingface.co"
ATTEMPTS = 6  # with the pauses of 1, 2, 4, 8 and 16 s between them
LONGEST_WAIT = 300.0  # s that a server may ask for; the hub counts requests in windows of five minutes
TIMEOUT = (10.0, 60.0)  # s to connect, and between two pieces
CHUNK = 1 << 17  # bytes: small enough for a moving bar on a slow line


@dataclass(frozen=True)
class Progress:
    """`done` and `total` in bytes. `note` is a line for the user, where something has to be waited for."""

    file: str
    done: int
    total: int | None
    seconds_left: float | None
    note: str = ""


def download(
    file: WeightFile,
    folder: str | os.PathLike[str],
    progress: Callable[[Progress], None] = lambda progress: None,
    mirror: str | None = None,
    attempts: int = ATTEMPTS,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """The file as `folder`/NAME. One that is there already and is the hub's is not transferred again.

    `mirror` is the address in the place of https://huggingface.co (default: the environment variable HF_ENDPOINT);
    proxies are those of the environment. Whatever `progress` raises stops the download; the next one goes on there.
    Raises DownloadError in one line, and DependencyError where requests is not installed. Not before it has its name
    does the file replace an older one.
    """
    if any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in _OFFLINE):
        raise DownloadError(f"{file.local_name} is not downloaded: {' or '.join(_OFFLINE)} says to stay offline")
    target = Path(folder) / file.local_name
    job = _Job(file, address(file, mirror), target, progress)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(job.beside(".lock"), target.name):
            _try_repeatedly(job, attempts, sleep)
    except OSError as error:
        raise DownloadError(_disk_trouble(error, target)) from error
    return target


_OFFLINE = ("HELLOMEME_OFFLINE", "HF_HUB_OFFLINE")


def address(file: WeightFile, mirror: str | None = None) -> str:
    """Where the hub, or a mirror of it, has the file. Raises DownloadError for a mirror that is no web address."""
    base = (mirror or os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    if urlsplit(base).scheme not in ("http", "https") or not urlsplit(base).hostname:
        raise DownloadError(f"the mirror {base!r} is no web address: give it like {HUB} (argument or HF_ENDPOINT)")
    return f"{base}/{file.repository}/resolve/main/{quote(file.file)}"


def sha256_of(path: Path) -> str:
    """In hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while piece := content.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@dataclass(frozen=True)
class _Job:
    file: WeightFile
    url: str
    target: Path
    progress: Callable[[Progress], None]

    def beside(self, suffix: str) -> Path:
        return self.target.with_name(self.target.name + suffix)

    @property
    def part(self) -> Path:
        return self.beside(".part")

    @property
    def state(self) -> Path:
        return self.beside(".part.json")

    def discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)

    @property
    def by_hand(self) -> str:
        page = f"{HUB}/{self.file.repository}"
        return f"get {self.file.file} from {page} with a browser and put it here as {self.target}"


class _Again(Exception):
    """Another attempt may succeed. `wait` in seconds; None: the longer, the more attempts there were."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def _try_repeatedly(job: _Job, attempts: int, sleep: Callable[[float], None]) -> None:
    reason = ""
    for attempt in range(attempts):
        try:
            return _try(job)
        except _Again as again:
            reason = str(again)
            wait = 2.0**attempt if again.wait is None else again.wait
        if attempt + 1 < attempts:
            note = f"{reason}; " + (f"trying again in {wait:.0f} s" if wait else "starting over")
            done = job.part.stat().st_size if job.part.exists() else 0
            job.progress(Progress(job.target.name, done, None, None, note))
            sleep(wait)
    raise DownloadError(
        f"{job.target.name} could not be downloaded: {reason}, {attempts} times: try again later, it goes on where it"
        f" stopped; or {job.by_hand}"
    )


def _try(job: _Job) -> None:
    """One request, and the file under its name."""
    begun, known = _left_over(job)
    headers = {"Accept-Encoding": "identity"}
    if begun:
        headers["Range"] = f"bytes={begun}-"
        if known.etag:
            headers["If-Range"] = known.etag
    with _open(job, headers) as response:
        _refuse(job, response, begun)
        remote = _remote(response)
        there = _already_there(job, remote)
        if not there:
            begun = _continued(job, response, begun, known, remote)
        if not there and response.status_code != 416:  # 416: nothing is missing
            _receive(job, response, begun, remote)
    if there:
        job.discard()
        _record(job, remote.sha256)
    else:
        _publish(job, _checked(job, begun, remote))


@dataclass(frozen=True)
class _Remote:
    """What the servers said. `etag` is a strong one of the server that sends the bytes, with its quotes."""

    etag: str = ""
    sha256: str = ""
    size: int | None = None

    def same(self, other: _Remote) -> bool:
        """Whether this is the same file for sure."""
        if self.sha256 and other.sha256:
            return self.sha256 == other.sha256
        return bool(self.etag) and self.etag == other.etag


def _remote(response: Response) -> _Remote:
    """The hub redirects to its store, and that answer names sha256 and size: X-Linked-Etag and X-Linked-Size.

    The ETag of the store is something else, even where it has 64 digits; it only tells one file from the next.
    """
    answers = [*response.history, response]
    said = {name: value for answer in answers for name, value in answer.headers.lower_items()}
    tag = said.get("x-linked-etag") or answers[0].headers.get("ETag", "")
    digits = tag.removeprefix("W/").strip('"').lower()
    etag = response.headers.get("ETag", "")
    size = said.get("x-linked-size") or response.headers.get("Content-Range", "").rpartition("/")[2]
    if not size and response.status_code == 200 and "Content-Encoding" not in response.headers:
        size = response.headers.get("Content-Length", "")
    return _Remote(
        etag=etag if etag.startswith('"') else "",
        sha256=digits if re.fullmatch("[0-9a-f]{64}", digits) else "",
        size=int(size) if size.isdecimal() else None,
    )


def _already_there(job: _Job, remote: _Remote) -> bool:
    if not remote.sha256 or not job.target.is_file() or remote.size not in (None, job.target.stat().st_size):
        return False
    return sha256_of(job.target) == remote.sha256


def _left_over(job: _Job) -> tuple[int, _Remote]:
    """How many bytes an earlier attempt left that can be gone on with, and of what."""
    try:
        known = _Remote(**json.loads(job.state.read_text(encoding="utf-8")))
        begun = job.part.stat().st_size
    except (OSError, ValueError, TypeError):
        return 0, _Remote()
    return (begun, known) if known.same(known) else (0, _Remote())


def _open(job: _Job, headers: dict[str, str]) -> Response:
    try:
        import requests
    except ImportError as error:
        raise DependencyError(f"requests is not installed: pip install requests, or {job.by_hand}") from error
    try:
        return requests.get(job.url, headers=headers, stream=True, timeout=TIMEOUT)
    except (requests.ConnectionError, requests.Timeout) as error:
        raise _Again(f"{_host(job.url)} cannot be reached ({type(error).__name__})") from error
    except requests.RequestException as error:
        raise DownloadError(f"{_host(job.url)} cannot be asked: {str(error).splitlines()[0]}") from error


def _refuse(job: _Job, response: Response, begun: int) -> None:
    """Raises for every answer that is not the file, with nothing on the disk changed."""
    status, host, name = response.status_code, _host(response.url), f"{job.file.repository}/{job.file.file}"
    if status in (401, 403):
        raise DownloadError(
            f"{host} refuses {name} ({status}): it may be gated, or the mirror wrong (HF_ENDPOINT): {job.by_hand}"
        )
    if status in (404, 410):
        raise DownloadError(f"{host} has no {name} ({status}): check the mirror (HF_ENDPOINT), or {job.by_hand}")
    if status in (408, 429) or status >= 500:
        raise _Again(f"{host} answers {status} {response.reason}", _retry_after(response))
    if status not in (200, 206) and not (status == 416 and begun):
        raise DownloadError(f"{host} answers {status} {response.reason} for {name}: {job.by_hand}")
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise DownloadError(
            f"{host} sent a web page in place of {name}: check the mirror (HF_ENDPOINT), and whether this network asks"
            " to sign in first"
        )


def _retry_after(response: Response) -> float | None:
    """Seconds, given as such or as a date (RFC 9110, 10.2.3). Raises DownloadError for too many."""
    asked = response.headers.get("Retry-After", "")
    if asked.isdecimal():
        seconds = float(asked)
    else:
        try:
            moment = parsedate_to_datetime(asked)
        except (TypeError, ValueError):
            return None
        seconds = (moment.replace(tzinfo=moment.tzinfo or timezone.utc) - datetime.now(timezone.utc)).total_seconds()
    if seconds > LONGEST_WAIT:
        raise DownloadError(f"{_host(response.url)} asks to wait {seconds / 60:.0f} minutes: start the download then")
    return max(seconds, 1.0)


def _continued(job: _Job, response: Response, begun: int, known: _Remote, remote: _Remote) -> int:
    """How many bytes of the part file stay. Raises _Again where what comes does not fit behind it."""
    if response.status_code == 200:
        return 0
    described = response.headers.get("Content-Range", "")
    first = re.match(r"bytes (\d+)-", described)
    starts_at = remote.size if response.status_code == 416 else int(first[1]) if first else None
    if starts_at == begun and (known.same(remote) or not begun):
        return begun
    job.discard()
    raise _Again(f"what {_host(response.url)} sends does not continue what is here", wait=0.0)


def _receive(job: _Job, response: Response, begun: int, remote: _Remote) -> None:
    import requests

    if not begun:
        job.discard()  # first: a new state must never stand beside old bytes
        _write_text(job.state, json.dumps(asdict(remote)))
    if shutil.disk_usage(job.target.parent).free < (remote.size or 0) - begun:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    # _checked counts the bytes. With this on, urllib3 2 would drop the last ones before a connection broke.
    response.raw.enforce_content_length = False
    report = _reporter(job, begun, remote.size)
    with open(job.part, "ab") as part:
        done = begun
        report(done)
        try:
            for piece in response.iter_content(CHUNK):
                part.write(piece)
                done += len(piece)
                report(done)
                if remote.size is not None and done > remote.size:
                    break  # _checked says so
        except requests.RequestException as error:
            raise _Again(f"the connection to {_host(response.url)} broke") from error
        _to_disk(part)


def _reporter(job: _Job, begun: int, total: int | None) -> Callable[[int], None]:
    started = time.monotonic()

    def report(done: int) -> None:
        seconds = time.monotonic() - started
        left = None
        if total is not None and done > begun:
            left = max(total - done, 0) * seconds / (done - begun)
        job.progress(Progress(job.target.name, done, total, left))

    return report


def _checked(job: _Job, begun: int, remote: _Remote) -> str:
    """The sha256 of the part file. Raises _Again or DownloadError where it is not the whole file, or another."""
    host, size = _host(job.url), job.part.stat().st_size
    if remote.size is not None and size < remote.size:
        raise _Again(f"{host} sent {size} of {remote.size} bytes")
    digest = sha256_of(job.part)
    if remote.size is not None and size > remote.size:
        fault = f"it is longer than the {remote.size} bytes announced"
    elif remote.sha256 and digest != remote.sha256:
        fault = f"its sha256 begins {digest[:8]} in place of {remote.sha256[:8]}"
    else:
        fault = _other_content(job)
    if not fault:
        return digest
    job.discard()
    if begun:  # the fault may lie in what was here before
        raise _Again(f"{host} sent another {job.target.name}: {fault}", wait=0.0)
    raise DownloadError(
        f"{host} sent another file in place of {job.target.name}: {fault}; check the mirror (HF_ENDPOINT), or"
        f" {job.by_hand}"
    )


def _other_content(job: _Job) -> str:
    """What the part file is if it is not what the catalog says, otherwise nothing."""
    if job.file.layout is None:
        with job.part.open("rb") as part:
            return "" if part.read(1) == b"\x08" else "it is no ONNX model"  # the field ir_version comes first
    try:
        layout = identify(job.part)
    except CheckpointError as error:
        return str(error).replace(job.part.name, "it").partition(": download")[0]
    return "" if layout is LAYOUTS[job.file.layout] else f"it is a {layout.title}"


def _publish(job: _Job, digest: str) -> None:
    job.beside(".sha256").unlink(missing_ok=True)  # no moment at which it is another file's
    os.replace(job.part, job.target)
    job.state.unlink(missing_ok=True)
    _record(job, digest)


def _record(job: _Job, digest: str) -> None:
    _write_text(job.beside(".sha256"), f"{digest}  {job.target.name}\n")


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(text.encode())
        _to_disk(file)
    os.replace(temporary, path)


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _only_one(path: Path, name: str) -> Iterator[None]:
    """Hold the file `path` for this download alone. The system lets go of it when the process ends, however it ends."""
    with open(path, "ab") as file:
        try:
            _lock(file)
            # Whoever held it before may have removed it meanwhile: then the lock is on nothing.
            held = os.path.samestat(os.fstat(file.fileno()), path.stat())
        except (BlockingIOError, PermissionError, FileNotFoundError):
            held = False
        except OSError:  # some network folders know no locks
            held = True
        if not held:
            raise DownloadError(f"{name} is being downloaded already, here or by another program: wait for that one")
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes no open file; an empty one that nobody holds does no harm
                path.unlink()


def _lock(file: BinaryIO) -> None:
    """Raises OSError where another has it."""
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _disk_trouble(error: OSError, target: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"there is no room on the disk for {target}: free some and start again, it goes on where it stopped"
    reason = error.strerror or error
    if isinstance(error, PermissionError) and target.exists():  # Windows replaces no file that a program has mapped
        return f"{target} cannot be replaced ({reason}): close the webui or program that uses it and start again"
    return f"{target} cannot be written: {reason}"


def _host(url: str) -> str:
    """Without a password that an address may hold."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)

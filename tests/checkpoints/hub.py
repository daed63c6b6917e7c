"""A hub on this machine that misbehaves as told: `GET /REPOSITORY/resolve/main/FILE` leads to `GET /store/...`."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub:
    """What is served and how. A turn is called when a file is asked for: the first one the first time, and so on."""

    def __init__(self, content: bytes) -> None:
        self.address = ""
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.sent = 0
        self.turns: list[Turn] = []
        self.redirects = True  # with the sha256 and the size, as the hub does; otherwise the file comes directly
        self.etags = True
        self.tag: Callable[[bytes], str] = lambda content: hashlib.md5(content).hexdigest()
        self.ranges = True
        self.checks_if_range = True
        self.drop_after: int | None = None  # bytes of the body; for one answer
        self.silent = False
        self.status: tuple[int, dict[str, str]] | None = None  # for one answer
        self.too_long = 0  # bytes that Content-Length names beyond the truth
        self.content_type = "application/octet-stream"
        self.sha256: str | None = None  # a lie
        self.size: int | None = None
        self.content = content

    def asked(self, header: str) -> list[str]:
        """This header of each request for a file, "" where it had none."""
        return [headers.get(header, "") for path, headers in self.requests if not path.startswith("/store/")]


def drops(after: int, silent: bool = False) -> Turn:
    """The connection breaks after so many bytes, or nothing more comes on it."""

    def turn(hub: Hub) -> None:
        hub.drop_after, hub.silent = after, silent

    return turn


def answers(status: int, **headers: str) -> Turn:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda hub: setattr(hub, "status", (status, named))


def becomes(content: bytes) -> Turn:
    return lambda hub: setattr(hub, "content", content)


Turn = Callable[[Hub], None]


class _Handler(BaseHTTPRequestHandler):
    timeout = 5
    server: _Server

    def do_GET(self) -> None:
        hub = self.server.hub
        path = re.sub(r"^http://[^/]*", "", self.path)  # a proxy is given the whole address
        hub.requests.append((path, {name.title(): value for name, value in self.headers.items()}))
        stored = path.startswith("/store/")
        if hub.turns and not stored:
            hub.turns.pop(0)(hub)
        if hub.status:
            (status, headers), hub.status = hub.status, None
            self._head(status, {"Content-Length": "0", **headers})
        elif hub.redirects and not stored:
            self._redirect(hub, path)
        else:
            self._serve(hub)

    def _redirect(self, hub: Hub, path: str) -> None:
        digest = hub.sha256 or hashlib.sha256(hub.content).hexdigest()
        size = len(hub.content) if hub.size is None else hub.size
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(size), "ETag": '"0123"'}
        self._head(302, {"Location": f"/store{path}", "Content-Length": "0", **linked})

    def _serve(self, hub: Hub) -> None:
        content, first, status = hub.content, 0, 200
        etag = f'"{hub.tag(content)}"'
        headers = {"Content-Type": hub.content_type} | ({"ETag": etag} if hub.etags else {})
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        unchanged = self.headers.get("If-Range", etag) == etag or not hub.checks_if_range
        if asked and hub.ranges and unchanged:
            first, status = int(asked[1]), 206
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        if first and first >= len(content):
            self._head(416, headers | {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
            return
        announced = len(content) - first + hub.too_long
        self._head(status, headers | {"Content-Length": str(announced)})
        body = content[first:][:announced][: hub.drop_after]
        silent, hub.silent, hub.drop_after = hub.silent, False, None
        hub.sent += len(body)
        self.wfile.write(body)
        if silent:
            time.sleep(0.5)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # the other side may hang up whenever it likes


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """Serve it on a free port of the loopback until the end of the block."""
    server = _Server(hub)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)

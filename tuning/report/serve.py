"""`lenet report --serve`: a page that follows what it shows, for this machine alone."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from job.errors import InputError
from job.reasons import reason_of, text_of
from job.runs.run import Run
from job.waiting import waiting
from tuning.records import Sweep
from tuning.report.command import (
    PAGE,
    content_of,
    files_of,
    found_by,
    open_target,
    title_of,
)
from tuning.report.frame import Frame, Price

HOST = "127.0.0.1"
# A page of another site can have its own name lead to this machine, and would read what is here;
# the name in the request gives it away. Tunnels have other ports.
NAMES = (HOST, "localhost")
# For so long what was read holds: a store is asked in requests that are paid for.
HOLDS_SECONDS = 2.0
HOLDS_REMOTE_SECONDS = 30.0
TYPES = {
    "html": "text/html; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "yaml": "text/plain; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}
HEADERS = {
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}

log = logging.getLogger(__name__)


class Live:
    """A report that is made anew where what it is made from has changed.

    Args:
        names: Of sweeps or runs, as `report` takes them.
        storage: Where they are kept.
        price: Of an hour of one trial.

    Raises:
        InputError: A name is unknown.
    """

    def __init__(self, names: Sequence[str], storage: str, price: Price | None = None) -> None:
        meant = found_by(names, storage)
        # What `last` stands for is decided once.
        self._names = [found.name for found in meant]
        self._storage, self._price = storage, price
        is_remote = any(found.folder.is_remote for found in meant)
        self._holds = HOLDS_REMOTE_SECONDS if is_remote else HOLDS_SECONDS
        self._targets: list[Sweep | Run | None] = [open_target(n, storage) for n in self._names]
        self._lock = threading.Lock()
        self._read = -float("inf")
        self._version, self._files = "", dict[str, bytes]()

    def files(self) -> tuple[str, dict[str, bytes]]:
        """The version that they are of, and the report's files by name.

        Raises:
            InputError: There is nothing to report yet.
            JobError: A record can't be read or trusted.
        """
        with self._lock:
            if time.monotonic() - self._read >= self._holds:
                self._renew()
            return self._version, self._files

    @waiting("runs to be read and drawn")
    def _renew(self) -> None:
        pairs = zip(self._names, self._targets, strict=True)
        targets = [open_target(name, self._storage, known) for name, known in pairs]
        content = content_of(targets)
        version = hashlib.sha256(repr((content, self._price)).encode()).hexdigest()[:16]
        if version != self._version:
            frame = Frame(written=time.time(), price=self._price, version=version)
            self._files = files_of(content, title_of(targets), frame)
        self._targets, self._version = list(targets), version
        self._read = time.monotonic()


def serve(live: Live, port: int, announce: Callable[[str], None]) -> None:
    """Serves a live report until Ctrl-C.

    Args:
        live: The report.
        port: As that of `Server`.
        announce: Is told where it is, once it answers.

    Raises:
        InputError: The port can't be had.
    """
    with Server(live, port) as server:
        announce(server.url)
        # What a server is ended with is no failure.
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


class Server(ThreadingHTTPServer):
    """Serves a live report on this machine.

    Args:
        live: The report.
        port: Where; 0 for any that is free.

    Raises:
        InputError: The port can't be had.
    """

    daemon_threads = True

    def __init__(self, live: Live, port: int = 0) -> None:
        self.live = live
        try:
            super().__init__((HOST, port), Handler)
        except OSError as error:
            raise InputError(
                "--port", port, f"can't be had: {text_of(error)}; 0 takes one that is free"
            ) from error

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{HOST}:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    """Answers with the report's files; the page is at `/`."""

    server: Server
    # Of this server alone; nobody needs to know which Python.
    server_version, sys_version = "lenet", ""

    def do_GET(self) -> None:
        """Sends a file, or why there is none."""
        if self._host() not in NAMES:
            self._say(HTTPStatus.MISDIRECTED_REQUEST, f"call it {self.server.url}")
            return
        name = unquote(urlsplit(self.path).path).lstrip("/") or PAGE
        try:
            version, files = self.server.live.files()
        except Exception as error:
            reason = reason_of(error)
            if reason is None:
                raise
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, reason, Refresh="5")
            return
        if name not in files:
            self._say(HTTPStatus.NOT_FOUND, f"there is no {name}")
            return
        tag = f'"{version}"'
        if self.headers.get("If-None-Match") == tag:
            self._send(HTTPStatus.NOT_MODIFIED, b"", ETag=tag)
            return
        kind = TYPES[name.rpartition(".")[2]]
        self._send(HTTPStatus.OK, files[name], **{"ETag": tag, "Content-Type": kind})

    def do_HEAD(self) -> None:
        """As `do_GET`, without the content."""
        self.do_GET()

    def _host(self) -> str:
        return urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""

    def _say(self, status: HTTPStatus, words: str, **headers: str) -> None:
        content = f"{words}\n".encode(errors="replace")
        self._send(status, content, **{"Content-Type": "text/plain; charset=utf-8"}, **headers)

    def _send(self, status: HTTPStatus, content: bytes, **headers: str) -> None:
        self.send_response(status)
        if status != HTTPStatus.NOT_MODIFIED:
            headers["Content-Length"] = str(len(content))
        for name, value in {**HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Logs requests for those alone who want to see them."""
        log.debug(format, *arguments)

"""A proxy between an S3 client and a server that does to single requests what networks and busy
servers do to them."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import ipaddress
import random
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

INTERNAL_ERROR = "500"
UNAVAILABLE = "503"
SLOW_DOWN = "slow down"
RESET = "reset"
RESET_AFTER = "reset after"
TIMEOUT = "timeout"
SLOW_STREAM = "slow stream"
TRUNCATED = "truncated"
FLIPPED = "flipped"
EXPIRED = "expired"
NO_BATCH = "no batch"
NO_TRAILERS = "no trailers"
NO_CONDITIONS = "no conditions"

FAULTS = (
    INTERNAL_ERROR,
    UNAVAILABLE,
    SLOW_DOWN,
    RESET,
    RESET_AFTER,
    TIMEOUT,
    SLOW_STREAM,
    TRUNCATED,
    FLIPPED,
    EXPIRED,
)
# What some stores are, and not what happens to one: no chance picks it.
KINDS = (NO_BATCH, NO_TRAILERS, NO_CONDITIONS)

# Answers that the server never hears of: status, code and message.
ERRORS = {
    INTERNAL_ERROR: (500, "InternalError", "We encountered an internal error. Please try again."),
    UNAVAILABLE: (503, "ServiceUnavailable", "Please reduce your request rate."),
    SLOW_DOWN: (503, "SlowDown", "Please reduce your request rate."),
    EXPIRED: (400, "ExpiredToken", "The provided token has expired."),
    NO_TRAILERS: (501, "NotImplemented", "Transfer-Encoding is not implemented."),
    NO_CONDITIONS: (501, "NotImplemented", "A header implies functionality that is missing."),
    NO_BATCH: (400, "MissingContentMD5", "Missing required header for this request."),
}

HOST = "127.0.0.1"
UPSTREAM_TIMEOUT_SECONDS = 60.0
SLOW_STREAM_SECONDS = 0.5
SLOW_STREAM_PIECES = 10

Choose = Callable[[str, str], str | None]


def never(method: str, path: str) -> None:
    """No fault for any request."""


class Chance:
    """Chooses a random fault for a share of the requests.

    Requests that come at the same time come in no fixed order: only the sequence of choices is
    reproducible, not which request gets which.

    Args:
        seed: Of the sequence.
        rate: Share of the requests to spoil.
        faults: Those to choose from, each as likely as the others.
    """

    def __init__(self, seed: int, rate: float, faults: tuple[str, ...] = FAULTS) -> None:
        self.rate = rate
        self.faults = faults
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def __call__(self, method: str, path: str) -> str | None:
        with self._lock:
            hit = self._random.random() < self.rate
            return self._random.choice(self.faults) if hit else None


class FaultProxy:
    """Passes requests on unchanged, but for those that are chosen.

    Every attribute may be changed while it runs. A server that is down shows as a reset.

    Args:
        upstream: The server's address, as `http://127.0.0.1:8333`.
        choose: Which fault, if any, a request gets, by its method and its path with query; called
            from several threads.
        certificate: Of this proxy, with its key; it serves https then.

    Attributes:
        endpoint: Where clients reach it, once it is entered.
        latency: Seconds by which every request is delayed.
        hold: Seconds after which a request that timed out is reset.
        requests: Method and path of every request that came.
        headers: Of every request, by lower-case name.
        injected: How often a fault was done to a request, by fault. One that does not apply, as a
            flipped byte in an empty body, is not done and not counted.
    """

    def __init__(
        self, upstream: str, choose: Choose = never, certificate: Path | None = None
    ) -> None:
        self.upstream = upstream
        self.certificate = certificate
        self.choose = choose
        self.latency = 0.0
        self.hold = 30.0
        self.requests: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.injected: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._closed = threading.Event()

    def __enter__(self) -> FaultProxy:
        self._server = _Server((HOST, 0), _Handler)
        self._server.proxy = self
        scheme = "http"
        if self.certificate:
            scheme, context = "https", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.endpoint = f"{scheme}://{HOST}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        # Clients keep connections open; nobody is to be answered any more.
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def pause(self, seconds: float) -> None:
        """Lets a request wait, but not longer than the proxy lives."""
        self._closed.wait(seconds)

    def arrived(self, method: str, path: str) -> str | None:
        """Notes a request and says which fault it gets."""
        with self._lock:
            self.requests.append((method, path))
        fault = self.choose(method, path)
        if fault is not None and fault not in FAULTS + KINDS:
            raise ValueError(f"no such fault: {fault!r}")
        return fault

    def count(self, fault: str) -> None:
        with self._lock:
            self.injected[fault] += 1

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)

    def closing(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)


class Body(NamedTuple):
    """A request's body as it came, and where in it a byte of content lies."""

    raw: bytes
    middle: int


class Answer(NamedTuple):
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes


class _Server(ThreadingHTTPServer):
    proxy: FaultProxy
    # Many uploads at once are no fault of ours.
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        # The default prints a traceback for each client that went away.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are sent apart: the body would wait for the head's acknowledgement.
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.proxy.opened(self.connection)

    def finish(self) -> None:
        self.server.proxy.closing(self.connection)
        super().finish()

    def log_message(self, *_: object) -> None:
        """Nothing is printed; the proxy counts."""

    def pass_on(self) -> None:
        proxy = self.server.proxy
        proxy.headers.append({name.lower(): value for name, value in self.headers.items()})
        fault = proxy.arrived(self.command, self.path)
        proxy.pause(proxy.latency)
        if fault == RESET:
            self.reset(fault)
            return
        body = self.read_body()
        if fault in ERRORS:
            proxy.count(fault)
            self.send(_error(*ERRORS[fault]))
        elif fault == TIMEOUT:
            proxy.pause(proxy.hold)
            self.reset(fault)
        else:
            self.pass_body_on(body, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on  # noqa: N815

    def pass_body_on(self, body: Body, fault: str | None) -> None:
        """What is done to a request that the server hears of."""
        proxy = self.server.proxy
        content = body.raw
        if fault == FLIPPED and self.command == "PUT" and content:
            proxy.count(fault)
            content = _flip(content, body.middle)
        try:
            answer = self.forward(content)
        except (OSError, http.client.HTTPException):
            self.reset()
            return
        has_body = bool(answer.body)
        if fault == RESET_AFTER or (fault == TRUNCATED and not has_body):
            self.reset(fault)
        elif fault == TRUNCATED:
            proxy.count(fault)
            self.send(answer, upto=len(answer.body) // 2)
            self.close_connection = True
        elif fault == SLOW_STREAM and has_body:
            proxy.count(fault)
            self.send(answer, pieces=SLOW_STREAM_PIECES)
        elif fault == FLIPPED and self.command == "GET" and _is_object(answer):
            proxy.count(fault)
            self.send(answer._replace(body=_flip(answer.body, len(answer.body) // 2)))
        else:
            self.send(answer)

    def read_body(self) -> Body:
        # `Expect: 100-continue` was answered with the head, by the base class.
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self.read_chunks()
        size = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(size)
        if len(raw) < size:
            raise ConnectionError("the client went away")
        return Body(raw, size // 2)

    def read_chunks(self) -> Body:
        """Reads chunks with their sizes and trailers, all of which the server is to see as sent."""
        raw = bytearray()
        largest = middle = 0
        while True:
            line = self.read_line()
            raw += line
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            if size > largest:
                largest, middle = size, len(raw) + size // 2
            raw += self.rfile.read(size) + self.read_line()
        while line.strip():
            line = self.read_line()
            raw += line
        return Body(bytes(raw), middle)

    def read_line(self) -> bytes:
        line = self.rfile.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("the client went away")
        return line

    def forward(self, content: bytes) -> Answer:
        upstream = urlsplit(self.server.proxy.upstream)
        connection = http.client.HTTPConnection(
            upstream.hostname, upstream.port, timeout=UPSTREAM_TIMEOUT_SECONDS
        )
        try:
            # The signature covers the headers, Host among them: none is added or replaced.
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(content or None)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        return Answer(response.status, response.reason, response.getheaders(), body)

    def send(self, answer: Answer, pieces: int = 1, upto: int | None = None) -> None:
        """Answers the client.

        Args:
            answer: What to say.
            pieces: In how many pieces to send the body; several take their time.
            upto: How much of the body to send, if not all.
        """
        self.send_response_only(answer.status, answer.reason)
        names = {name.lower() for name, _ in answer.headers}
        for name, value in answer.headers:
            if name.lower() != "transfer-encoding":
                self.send_header(name, value)
        if "content-length" not in names and answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        body = answer.body[:upto]
        size = -(-len(body) // pieces) or 1
        for start in range(0, len(body), size):
            if pieces > 1:
                time.sleep(SLOW_STREAM_SECONDS / pieces)
            self.wfile.write(body[start : start + size])

    def reset(self, fault: str | None = None) -> None:
        """Ends the connection so that the client sees a reset and not an end."""
        if fault is not None:
            self.server.proxy.count(fault)
        self.close_connection = True
        self.server.proxy.closing(self.connection)
        # Closing throws away what is not sent and resets; both must go, or the socket stays open.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()


def _error(status: int, code: str, message: str) -> Answer:
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    )
    reason = http.client.responses[status]
    return Answer(status, reason, [("Content-Type", "application/xml")], text.encode())


def _flip(content: bytes, position: int) -> bytes:
    flipped = bytearray(content)
    flipped[position] ^= 1
    return bytes(flipped)


def _is_object(answer: Answer) -> bool:
    """Whether a body is an object's content. No client can notice a flipped byte in a listing,
    which has no checksum."""
    return bool(answer.body) and any(name.lower() == "etag" for name, _ in answer.headers)


def self_signed(folder: Path, host: str = "127.0.0.1") -> Path:
    """A file with a certificate of an address, that nobody but a test trusts, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path

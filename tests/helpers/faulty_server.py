"""A file server on the loopback interface that can be told to go wrong, once a request, in the ways real ones do."""

from __future__ import annotations

import fcntl
import http.client
import re
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from folders import DATA
from loopback import running
from waiting import PATIENCE

_BLOCK = 1 << 14
_CLOSING = 20.0
"""Seconds that a system may take to close the connections of a process that was killed, or to hand bytes over."""
CERTIFICATE = DATA / "loopback.pem"
"""Certificate and key of the server, worth nothing elsewhere; a client trusts it by REQUESTS_CA_BUNDLE."""
DATE = "Wed, 01 Jan 2020 00:00:00 GMT"


@dataclass(frozen=True, slots=True)
class File:
    """What is at a path. Without ``tag`` and ``modified`` nothing tells it from a later one."""

    content: bytes
    tag: str | None = '"first"'
    modified: str | None = None

    @property
    def validators(self) -> dict[str, str]:
        named = {"ETag": self.tag, "Last-Modified": self.modified}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one answer; without arguments nothing does.

    Args:
        status: answer with this and a short text instead of the file.
        headers: headers to add to the answer, or to put in place of its own.
        cut: bytes of the body after which nothing more comes.
        ending: what the server does then: it closes the connection, resets it, or waits without a word.
        length_error: by how much the Content-Length is wrong.
        ignores: request headers that the server overlooks.
        shift: by how much a part begins elsewhere than asked.
        at_most: bytes after which a part ends, rightly framed: a server need not send all that is asked for.
        chunked: send the body in chunks, without its length.
        becomes: what is at the path from this request on.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    ending: Literal["close", "reset", "stall"] = "close"
    length_error: int = 0
    ignores: tuple[str, ...] = ()
    shift: int = 0
    at_most: int | None = None
    chunked: bool = False
    becomes: File | None = None


@dataclass(slots=True)
class Seen:
    """A request as the server saw it, and the bytes of body it gave to the connection for it."""

    path: str
    headers: Message
    status: int = 0
    sent: int = 0

    @property
    def range(self) -> str | None:
        return self.headers["Range"]


class FaultyServer(ThreadingHTTPServer):
    """``files`` by path; ``faults`` for the requests to come, in turn; ``seen`` has the requests.

    ``seconds`` is how long a body takes. ``most_at_once`` is the largest number of bodies that were on their way to
    clients still there.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, files: Mapping[str, File | bytes], *, encrypted: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._scheme = "https" if encrypted else "http"
        if encrypted:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.files = {path: File(file) if isinstance(file, bytes) else file for path, file in files.items()}
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.seconds = 0.0
        self.most_at_once = 0
        self.stopping = threading.Event()
        self._guard = threading.Lock()
        self._transfers: list[socket.socket] = []

    def address(self, path: str) -> str:
        return f"{self._scheme}://127.0.0.1:{self.server_address[1]}{path}"

    @property
    def ranges(self) -> list[str | None]:
        """The Range header of each request."""
        return [seen.range for seen in self.seen]

    @property
    def sent(self) -> list[int]:
        """The bytes of body given to the connection for each request."""
        return [seen.sent for seen in self.seen]

    def note(self, seen: Seen) -> Fault:
        with self._guard:
            self.seen.append(seen)
            fault = self.faults.pop(0) if self.faults else Fault()
            if fault.becomes is not None:
                self.files[seen.path] = fault.becomes
            return fault

    @contextmanager
    def transfer(self, connection: socket.socket) -> Iterator[None]:
        """Count a body on its way. A client killed a moment ago does not count, once the kernel has closed for it."""
        with self._guard:
            self._transfers.append(connection)
        ends = time.monotonic() + _CLOSING
        while self._alive() > 1 and time.monotonic() < ends:
            time.sleep(0.01)
        with self._guard:
            self.most_at_once = max(self.most_at_once, self._alive())
        try:
            yield
        finally:
            with self._guard:
                self._transfers.remove(connection)

    def _alive(self) -> int:
        return sum(_is_there(other) for other in tuple(self._transfers))

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is none of the server's business."""


def _is_there(connection: socket.socket) -> bool:
    if isinstance(connection, ssl.SSLSocket):
        return True
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _unread(connection: socket.socket) -> int:
    """Bytes sent that have not reached the client's side yet."""
    (count,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))
    return int(count)


class _Handler(BaseHTTPRequestHandler):
    server: FaultyServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        seen = Seen(self.path.split("?")[0], self.headers)
        fault = self.server.note(seen)
        file = self.server.files.get(seen.path)
        if fault.status is not None or file is None:
            self._answer(seen, fault.status or 404, {**fault.headers}, b"no such luck\n", Fault())
            return
        status, headers, body = _part(file, self.headers, fault)
        self._answer(seen, status, {**file.validators, **headers, **fault.headers}, body, fault)

    def _answer(self, seen: Seen, status: int, headers: dict[str, str], body: bytes, fault: Fault) -> None:
        seen.status = status
        self.send_response(status)
        length = (
            {"Transfer-Encoding": "chunked"} if fault.chunked else {"Content-Length": len(body) + fault.length_error}
        )
        for name, value in {**length, **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        with self.server.transfer(self.connection):
            self._send(seen, body[: fault.cut], fault)
        if fault.cut is not None or fault.length_error:
            self._end(fault.ending)
        elif fault.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _send(self, seen: Seen, body: bytes, fault: Fault) -> None:
        blocks = [body[start : start + _BLOCK] for start in range(0, len(body), _BLOCK)]
        for block in blocks:
            if self.server.seconds:
                self.server.stopping.wait(self.server.seconds / len(blocks))
                if not _is_there(self.connection):
                    raise ConnectionAbortedError
            seen.sent += len(block)  # before the client can have it, and ask for what was sent
            self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block) if fault.chunked else block)

    def _end(self, ending: str) -> None:
        self.close_connection = True
        if ending == "stall":
            self.server.stopping.wait()
        elif ending == "reset":
            ends = time.monotonic() + _CLOSING
            while _unread(self.connection) and time.monotonic() < ends:  # a reset throws it away
                time.sleep(0.005)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


def _part(file: File, asked: Message, fault: Fault) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to a request for all of ``file`` or what follows some byte of it."""
    found = re.fullmatch(r"bytes=(\d+)-", asked["Range"] or "")
    same = asked["If-Range"] in (None, *file.validators.values()) or "If-Range" in fault.ignores
    if not found or not same or "Range" in fault.ignores:
        return 200, {}, file.content
    size, start = len(file.content), int(found[1])
    if start >= size:
        return 416, {"Content-Range": f"bytes */{size}"}, b""
    start += fault.shift
    end = size if fault.at_most is None else start + fault.at_most
    return 206, {"Content-Range": f"bytes {start}-{end - 1}/{size}"}, file.content[start:end]


@contextmanager
def serving(files: Mapping[str, File | bytes], *, encrypted: bool = False) -> Iterator[FaultyServer]:
    """A server of ``files`` while the block lasts."""
    with running(FaultyServer(files, encrypted=encrypted)) as server:
        try:
            yield server
        finally:
            server.stopping.set()


class _ProxyHandler(BaseHTTPRequestHandler):
    server: Proxy

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        host, path = re.fullmatch(r"http://([^/]+)(/.*)", self.path).groups()  # type: ignore[union-attr]
        connection = http.client.HTTPConnection(host, timeout=PATIENCE)
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        self.send_response(response.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Proxy(ThreadingHTTPServer):
    """A proxy for plain HTTP; ``asked`` has the addresses it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _ProxyHandler)
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def proxying() -> Iterator[Proxy]:
    """A proxy while the block lasts."""
    with running(Proxy()) as proxy:
        yield proxy


def closed_port() -> int:
    """A port of the loopback interface where nobody listens."""
    with socket.socket() as taken, suppress(OSError):
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
    raise AssertionError

"""A small web server for a page of this project, by default reachable from this machine only."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

from fbnetv3_zoo.errors import ZooError, check_whole
from fbnetv3_zoo.utils.atomic_write import settled

from .folder import PAGE

TYPES = MappingProxyType({
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".txt": "text/plain; charset=utf-8",
    ".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8", ".json": "application/json",
    ".wasm": "application/wasm", ".onnx": "application/octet-stream", ".svg": "image/svg+xml", ".png": "image/png",
    ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif", ".bmp": "image/bmp",
})  # fmt: skip
"""Content types of the files that are served, by extension."""

POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; style-src 'self'; base-uri 'none'; form-action 'none'"
)
"""What the page may load: its own files, and images that the user opens."""

HEADERS = MappingProxyType({
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    # These two allow threads: the page is isolated in a process of its own.
    "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin", "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer", "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",  # cached but revalidated: a page may be written again
})  # fmt: skip
"""Headers of every response."""

_FILES = 1 << 16


@dataclass(frozen=True, slots=True)
class PageServer:
    """A server that already listens. ``address`` is the URL to open in a browser."""

    address: str
    _server: ThreadingHTTPServer

    def run(self) -> None:
        """Serve until another thread calls :meth:`stop` or the process is interrupted, then free the port."""
        _open_many()
        with self._server:
            self._server.serve_forever(poll_interval=0.2)

    def stop(self) -> None:
        """Stop :meth:`run`, from another thread."""
        self._server.shutdown()


def page_server(folder: str | Path, *, host: str = "127.0.0.1", port: int = 8000) -> PageServer:
    """A server for the page in ``folder``.

    Args:
        folder: a page written by :func:`fbnetv3_zoo.export.web.page.write_web`; only its files are served.
        host: the address to listen on. Browsers allow threads and the camera on 127.0.0.1, elsewhere only over https.
        port: the port; 0 for any free one.

    Raises :class:`ZooError` if there is no page or the port is in use.
    """
    (folder,) = settled(folder)
    check_whole("port", port, at_least=0, at_most=65535)
    PAGE.read(folder)
    try:
        server = _Server((host, port), partial(_Handler, folder=folder.resolve()))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ZooError(f"port {port} of {host} is in use; give another, or 0 for any free one") from None
        raise ZooError(f"port {port} of {host} cannot be used ({error.strerror or error})") from None
    return PageServer(f"http://{host}:{server.server_address[1]}/", server)


def _open_many() -> None:
    """Raise the limit on open files and connections as far as the system allows; each request takes two."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
        if soft != resource.RLIM_INFINITY and soft < limit:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024  # connections waiting to be accepted; the system drops those beyond it

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore browsers that hang up."""


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the files listed in the page's ``model.json``."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "fbnetv3-zoo", ""
    timeout = 60  # seconds that a connection may be idle

    def __init__(self, *arguments: object, folder: Path) -> None:
        self._folder = folder
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        path = self._file()
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            file = path.open("rb")
        except OSError:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with file:
            status = os.fstat(file.fileno())
            tag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
            if self.headers.get("If-None-Match") == tag:
                self.send_response(HTTPStatus.NOT_MODIFIED)
                self.send_header("ETag", tag)
                self.end_headers()
                return
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", TYPES[path.suffix])
            self.send_header("Content-Length", str(status.st_size))
            self.send_header("ETag", tag)
            self.end_headers()
            if with_body:
                shutil.copyfileobj(file, self.wfile, 1 << 18)

    def _file(self) -> Path | None:
        """The requested file, if it belongs to the page."""
        name = unquote(urlsplit(self.path).path).removeprefix("/") or "index.html"
        try:
            known = PAGE.read(self._folder)["files"]
        except ZooError:  # being written again
            return None
        path = self._folder / name if name in known else None
        inside = path is not None and path.suffix in TYPES and path.resolve().is_relative_to(self._folder)
        return path if inside else None

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Do not log requests."""

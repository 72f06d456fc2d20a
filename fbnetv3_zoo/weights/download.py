"""One file over HTTP: bounded attempts, each going on where the last one ended while the file is still the same."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import IO

import requests

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.weights.log import LOG

LARGEST_FILE = 8 << 30
"""Bytes after which a transfer is given up: no file of this family comes near."""

_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_LONGEST_PAUSE = 60.0
_BLOCK = 1 << 16

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the file's size, None where the server does not say."""


class _Interrupted(Exception):
    """An attempt that failed in a way that another one may not. ``pause``: seconds the server asks for."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


def download(
    address: str, file: IO[bytes], *, timeout: float = 30.0, attempts: int = 5, pause: float = 0.5,
    on_progress: Progress = lambda done, size: None,
) -> None:  # fmt: skip
    """Write what is at ``address`` into the empty ``file``, open for writing.

    Proxies and certificates are those of the environment. Raises :class:`ZooError` when the server refuses, or after
    ``attempts`` attempts; ``OSError`` where the file cannot be written.
    """
    transfer = _Transfer(address, file, timeout, on_progress)
    with requests.Session() as session:
        session.max_redirects = 10
        for attempt in range(1, attempts + 1):
            try:
                return transfer.attempt(session)
            except _Interrupted as interruption:
                if attempt == attempts:
                    times = f"after {attempts} attempts" if attempts > 1 else "at the only attempt"
                    raise ZooError(f"{address}: {interruption} ({times})") from None
                LOG.info("%s: %s; trying again", address, interruption)
                time.sleep(min(max(pause * 2 ** (attempt - 1), interruption.pause), _LONGEST_PAUSE))


class _Transfer:
    """The state of a file half here: how much there is, and what tells whether the server still has the same one."""

    def __init__(self, address: str, file: IO[bytes], timeout: float, on_progress: Progress) -> None:
        self._address, self._file, self._timeout, self._on_progress = address, file, timeout, on_progress
        self._validator: str | None = None
        self._done = 0
        self._size: int | None = None

    def attempt(self, session: requests.Session) -> None:
        headers = {"Accept-Encoding": "identity", "User-Agent": "fbnetv3-zoo"}
        if self._done and self._validator:
            headers |= {"Range": f"bytes={self._done}-", "If-Range": self._validator}
        else:
            self._restart()
        try:
            with session.get(self._address, headers=headers, stream=True, timeout=self._timeout) as response:
                self._receive(response, size=self._admit(response))
        except requests.TooManyRedirects:
            raise ZooError(f"{self._address}: the server redirects in a circle") from None
        except requests.exceptions.SSLError as error:
            raise ZooError(
                f"{self._address}: its certificate is not trusted ({_cause(error)}); REQUESTS_CA_BUNDLE names others"
            ) from None
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise _Interrupted(_cause(error)) from None
        except requests.RequestException as error:
            raise ZooError(f"{self._address}: cannot be asked for ({_cause(error)})") from None

    def _admit(self, response: requests.Response) -> int | None:
        """Judge the answer's head, and make ready for its body; the size of the whole file if the head says so."""
        if self._address.startswith("https:") and not response.url.startswith("https:"):
            raise ZooError(f"{self._address}: redirects to an address without encryption, {response.url}")
        if response.status_code in _TRANSIENT:
            raise _Interrupted(f"the server answered {_status(response)}", _asked_pause(response))
        validator, size = _validator(response), _whole(response.headers.get("Content-Length", ""))
        if response.status_code == 206:
            start, total = _content_range(response)
            if start != self._done or total != self._size or validator not in (None, self._validator):
                self._restart()
                raise _Interrupted("the file changed between two attempts")
            return total
        if response.status_code == 416:
            self._restart()
            raise _Interrupted("the file became shorter between two attempts")
        if response.status_code != 200:
            raise ZooError(f"{self._address}: the server answered {_status(response)}")
        self._restart()
        self._validator, self._size = validator, size
        return size

    def _receive(self, response: requests.Response, size: int | None) -> None:
        self._on_progress(self._done, size)
        for block in response.iter_content(_BLOCK):
            self._file.write(block)
            self._done += len(block)
            if self._done > LARGEST_FILE:
                raise ZooError(f"{self._address}: sends more than {LARGEST_FILE >> 30} GiB; given up")
            self._on_progress(self._done, size)
        if size is not None and self._done != size:
            raise _Interrupted(f"ended after {self._done} of {size} bytes")

    def _restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._done, self._validator, self._size = 0, None, None


def _validator(response: requests.Response) -> str | None:
    """What If-Range may name: a strong entity tag, or else the date of the last change."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _content_range(response: requests.Response) -> tuple[int | None, int | None]:
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    return (int(found[1]), _whole(found[2])) if found else (None, None)


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _asked_pause(response: requests.Response) -> float:
    return float(_whole(response.headers.get("Retry-After", "")) or 0)


def _status(response: requests.Response) -> str:
    return f"{response.status_code} {response.reason or ''}".strip()


def _cause(error: BaseException) -> str:
    """The innermost reason of a chain of exceptions, in one line."""
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "no answer in time"
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__

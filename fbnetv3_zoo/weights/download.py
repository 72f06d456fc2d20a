"""Download one file over HTTP, in several attempts that resume as long as the file does not change."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO

import requests

from ..errors import ZooError, without_secrets
from ..utils.log import LOG
from .cache import LARGEST_FILE

_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_LONGEST_PAUSE = 60.0
_BLOCK = 1 << 13  # most bytes that a broken attempt loses

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes received and the file's size, None if the server does not state it."""


class _TransientError(Exception):
    """A failure after which another attempt may succeed. ``pause``: seconds requested by the server."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


def download(
    address: str, file: IO[bytes], *, timeout: float = 30.0, attempts: int = 5, pause: float = 0.5,
    on_progress: Progress = lambda done, size: None,
) -> None:  # fmt: skip
    """Download ``address`` into the empty ``file``, which is open for writing.

    Proxies and certificates are those of the environment. Raises :class:`ZooError` if the server refuses, and after
    ``attempts`` attempts; ``OSError`` only if the file cannot be written.
    """
    transfer = _Transfer(address, file, timeout, on_progress)
    with requests.Session() as session:
        session.max_redirects = 10
        for attempt in range(1, attempts + 1):
            try:
                return transfer.attempt(session)
            except _TransientError as error:
                if attempt == attempts:
                    times = f"after {attempts} attempts" if attempts > 1 else "at the only attempt"
                    raise ZooError(f"{address}: {error} ({times})") from None
                LOG.info("%s: %s; trying again", without_secrets(address), without_secrets(str(error)))
                own = pause * 2 ** min(attempt - 1, 30)
                time.sleep(min(max(own, error.pause), _LONGEST_PAUSE))


@dataclass(frozen=True, slots=True)
class _Version:
    """Headers that identify a version of the file at an address."""

    tag: str | None = None
    date: str | None = None
    size: int | None = None

    @property
    def validator(self) -> str | None:
        """The value for If-Range: a strong entity tag, or else the date of the last change."""
        return self.tag if self.tag and not self.tag.startswith("W/") else self.date

    def agrees(self, later: _Version) -> bool:
        """Whether the headers that both have are equal."""
        pairs = (self.tag, later.tag), (self.date, later.date), (self.size, later.size)
        return all(one is None or other is None or one == other for one, other in pairs)


class _Transfer:
    """The state of a partial download: the number of bytes, and the version of the file."""

    def __init__(self, address: str, file: IO[bytes], timeout: float, on_progress: Progress) -> None:
        self._address, self._file, self._timeout, self._on_progress = address, file, timeout, on_progress
        self._version = _Version()
        self._done = 0

    def attempt(self, session: requests.Session) -> None:
        headers = {"Accept-Encoding": "identity", "User-Agent": "fbnetv3-zoo"}
        if self._done and self._version.validator:
            headers |= {"Range": f"bytes={self._done}-", "If-Range": self._version.validator}
        else:
            self._restart(_Version())
        with self._explained():
            response = session.get(self._address, headers=headers, stream=True, timeout=self._timeout)
        with response:
            self._admit(response)
            self._receive(response)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn network errors in the block into errors of one line."""
        try:
            yield
        except requests.TooManyRedirects:
            raise ZooError(f"{self._address}: the server redirects in a circle") from None
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            if isinstance(reason := _innermost(error), ssl.SSLCertVerificationError):
                problem = f"{self._address}: its certificate is not trusted ({reason.verify_message})"
                raise ZooError(f"{problem}; set REQUESTS_CA_BUNDLE to a file with its issuer's") from None
            size = "" if self._version.size is None else f" of {self._version.size}"
            raise _TransientError(_cause(error) + (f" after {self._done}{size} bytes" if self._done else "")) from None
        except (OSError, ValueError) as error:  # requests' other errors, urllib3's for odd addresses, a missing bundle
            raise ZooError(f"{self._address}: cannot be had ({_cause(error)})") from None

    def _admit(self, response: requests.Response) -> None:
        """Check the headers of a response and prepare for its body."""
        hops = [hop.url for hop in (*response.history, response)]
        if hops[0].startswith("https:") and (plain := [hop for hop in hops if not hop.startswith("https:")]):
            raise ZooError(f"{self._address}: redirects to an address without encryption, {plain[0]}")
        if response.status_code in _TRANSIENT:
            raise _TransientError(f"the server answered {_status(response)}", _asked_pause(response))
        if self._done and response.status_code in (206, 416):
            start, version = _part(response)
            if response.status_code == 416 or start != self._done or not self._version.agrees(version):
                self._restart(_Version())
                raise _TransientError("the file changed between two attempts")
            self._version = replace(self._version, size=self._version.size or version.size)
            return
        if response.status_code != 200:
            raise ZooError(f"{self._address}: the server answered {_status(response)}")
        self._restart(_whole(response))
        if (self._version.size or 0) > LARGEST_FILE:
            raise self._too_large()

    def _receive(self, response: requests.Response) -> None:
        size, blocks = self._version.size, response.iter_content(_BLOCK)
        self._on_progress(self._done, size)
        while block := self._next(blocks):
            self._file.write(block)
            self._done += len(block)
            if self._done > LARGEST_FILE:
                raise self._too_large()
            self._on_progress(self._done, size)
        if size is not None and self._done != size:
            raise _TransientError(f"the server sent {self._done} of {size} bytes")

    def _next(self, blocks: Iterator[bytes]) -> bytes:
        with self._explained():
            return next(blocks, b"")

    def _restart(self, version: _Version) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._done, self._version = 0, version

    def _too_large(self) -> ZooError:
        return ZooError(f"{self._address}: has more than {LARGEST_FILE >> 30} GiB; given up")


def _whole(response: requests.Response) -> _Version:
    """The version in a response with the whole file; unknown if the server compressed it nevertheless."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return _Version()
    return _Version(*_validators(response), _number(response.headers.get("Content-Length", "")))


def _part(response: requests.Response) -> tuple[int | None, _Version]:
    """The offset of the part in a response, and its version."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    start, size = (_number(match[1]), _number(match[2])) if match else (None, None)
    return start, _Version(*_validators(response), size)


def _validators(response: requests.Response) -> tuple[str | None, str | None]:
    return response.headers.get("ETag"), response.headers.get("Last-Modified")


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _asked_pause(response: requests.Response) -> float:
    return float(_number(response.headers.get("Retry-After", "")) or 0)


def _status(response: requests.Response) -> str:
    return f"{response.status_code} {response.reason or ''}".strip()


def _cause(error: BaseException) -> str:
    """The root cause of a chain of exceptions, in one line."""
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "no answer in time"
    reason = _innermost(error)
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection ended"
    return " ".join(str(reason).split())[:200] or type(reason).__name__


def _innermost(error: BaseException) -> BaseException:
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error

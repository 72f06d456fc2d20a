"""Addresses of files: what identifies the file, and its name."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode, urlsplit

_SIGNED = re.compile(
    r"(x-(amz|goog|oss|cos|obs|bce|ms)-.*|(aws|google|oss)access(key)?id|key-pair-id|policy|signature|expires?"
    r"|(access_|auth_|id_|private_|security_)?token|api_?key|sig|s[etvrp]|spr|sip|sk[a-z]{1,3})",
    re.IGNORECASE,
)
"""Query parameters that grant access to a file but do not identify it."""


def identity_of(address: str) -> str:
    """The part of an HTTP(S) address that identifies the file: without user, password, signature and fragment.

    A link that is signed anew every day finds the cached file; other query parameters identify different files.
    """
    try:
        parts = urlsplit(address)
        query = [(key, value) for key, value in parse_qsl(parts.query, keep_blank_values=True)]
    except ValueError:
        return address
    lasting = [(key, value) for key, value in query if not _SIGNED.fullmatch(key)]
    rest = parts.query if len(lasting) == len(query) else urlencode(lasting)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query=rest, fragment="").geturl()


def file_name_of(address: str) -> str:
    """The file name in an address; empty if its path has none."""
    return re.sub(r"^https?://[^/?#]*|[?#].*$", "", address, flags=re.DOTALL).rstrip("/").rpartition("/")[2]

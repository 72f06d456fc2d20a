"""Addresses of files: as they may be shown and stored, and what tells one file from another."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode, urlsplit

_SIGNED = re.compile(
    r"(x-(amz|goog|oss|cos|obs|bce|ms)-.*|(aws|google|oss)access(key)?id|key-pair-id|policy|signature|expires?"
    r"|(access_|auth_|id_|private_|security_)?token|api_?key|sig|s[etvrp]|spr|sip|sk[a-z]{1,3})",
    re.IGNORECASE,
)
"""Query parameters that say who may have a file, and until when, but never which file it is."""


def identity_of(address: str) -> str:
    """What of an HTTP(S) address says which file it is: not user, password and signature, which change, nor fragment.

    A link that is signed anew every day finds the file that is kept; addresses that differ in the rest of their query
    are different files.
    """
    try:
        parts = urlsplit(address)
        query = [(key, value) for key, value in parse_qsl(parts.query, keep_blank_values=True)]
    except ValueError:
        return address
    told = [(key, value) for key, value in query if not _SIGNED.fullmatch(key)]
    rest = parts.query if len(told) == len(query) else urlencode(told)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query=rest, fragment="").geturl()


def file_name_of(address: str) -> str:
    """The name of the file at an address; empty where its path names none."""
    return re.sub(r"^https?://[^/?#]*|[?#].*$", "", address, flags=re.DOTALL).rstrip("/").rpartition("/")[2]

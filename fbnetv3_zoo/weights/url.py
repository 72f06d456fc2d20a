"""Addresses of files: what identifies the file, and its name."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode, urlsplit

_SIGNED = re.compile(
    r"(x-(amz|goog|oss|cos|obs|bce|ms)-.*|(aws|google|oss)access(key)?id|key-pair-id|signature"
    r"|(access_|auth_|id_|private_|security_)token|api_?key|sig)",
    re.IGNORECASE,
)
"""Query parameters that grant access to a file but do not identify it."""

_BESIDE = {"signature": re.compile(r"policy|expires?", re.IGNORECASE),
           "sig": re.compile(r"s[etvrp]|spr|sip|sk[a-z]{1,3}", re.IGNORECASE)}  # fmt: skip
"""Others that do so beside a signature, by its name."""


def identity_of(address: str) -> str:
    """The part of an HTTP(S) address that identifies the file: without user, password, signature and fragment.

    A link that is signed anew every day finds the cached file; other query parameters identify different files. A token
    does where nothing else in the address can.
    """
    try:
        parts = urlsplit(address)
        query = [(key, value) for key, value in parse_qsl(parts.query, keep_blank_values=True)]
    except ValueError:
        return address
    names = {key.lower() for key, _ in query}
    signed = [_SIGNED, *(beside for signature, beside in _BESIDE.items() if signature in names)]
    lasting = [(key, value) for key, value in query if not any(one.fullmatch(key) for one in signed)]
    if len(lasting) > 1 or "." in file_name_of(address):  # alone it may be what a link identifies its file by
        lasting = [(key, value) for key, value in lasting if key.lower() != "token"]
    rest = parts.query if len(lasting) == len(query) else urlencode(lasting)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query=rest, fragment="").geturl()


def without_signature(address: str) -> str:
    """``address`` without user, password and what signs it, in a form that fetches a file which needs none of them.

    Text that is no address stays as it is.
    """
    plain, pin, digest = address.partition("#sha256=")
    if not plain.startswith(("http://", "https://")):
        return address
    parts = urlsplit(identity_of(plain))
    query = parse_qsl(parts.query, keep_blank_values=True)
    plain_query = [(key, value) for key, value in query if key.lower() != "token"]
    if len(plain_query) < len(query):
        parts = parts._replace(query=urlencode(plain_query))
    return parts.geturl() + pin + digest


def file_name_of(address: str) -> str:
    """The file name in an address; empty if its path has none."""
    return re.sub(r"^https?://[^/?#]*|[?#].*$", "", address, flags=re.DOTALL).rstrip("/").rpartition("/")[2]

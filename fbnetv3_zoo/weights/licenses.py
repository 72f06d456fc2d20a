"""Licenses of weights, and which of them allow commercial use."""

from __future__ import annotations

from enum import Enum

from ..errors import assert_never


class License(Enum):
    """License of a set of weights, by its SPDX identifier."""

    CC_BY_NC = "CC-BY-NC-4.0"
    APACHE = "Apache-2.0"

    @property
    def terms(self) -> str:
        """The terms of the license in a few words."""
        if self is License.CC_BY_NC:
            return "name the authors, no commercial use"
        if self is License.APACHE:
            return "any use, keep the notices"
        assert_never(self)


_COMMERCIAL = frozenset(
    {
        "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "zlib", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0",
        "cdla-permissive-2.0", "unlicense",
    }
)  # fmt: skip


def allows_commercial_use(license: License | str | None) -> bool:
    """Whether ``license``, by its SPDX identifier in any case, is known to allow commercial use.

    An unknown license, or none, allows nothing.
    """
    name = license.value if isinstance(license, License) else license
    return name is not None and name.lower() in _COMMERCIAL

"""What the package says when it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fbnetv3_zoo.errors import ZooError


def refusal(call: Callable[[], object]) -> str:
    """The one line of the error that ``call`` ends in."""
    with pytest.raises(ZooError) as caught:
        call()
    text = str(caught.value)
    assert text.isprintable(), text
    return text

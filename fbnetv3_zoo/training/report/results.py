"""The result of a run, for scripts: one JSON file in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...errors import counted
from ...utils.atomic_write import replacing
from ...utils.serialization import json_text
from ..evaluation import Evaluation

RESULTS = "results.json"
"""The file in the folder of a run."""
WIDE = 0.3
"""Width of the 95 % interval of an accuracy from which on there are few images."""


def write_results(folder: Path, values: Mapping[str, object]) -> None:
    """Write ``values`` into the folder of a run."""
    head = {"format": "fbnetv3_zoo.results", "version": 1}
    with replacing(folder / RESULTS) as temporary:
        temporary.write_text(json_text({**head, **values}, indent=1) + "\n", encoding="utf-8")


def hint_on(split: str, measured: Evaluation) -> str:
    """One line on the number of images of ``split``, if accuracy is known to no more than ±15 points; else empty."""
    low, high = measured.interval
    if high - low <= WIDE:
        return ""
    images = counted(measured.total, f"{split} image")
    return f"from {images}, accuracy is known to ±{50 * (high - low):.0f} points only; more of them make it certain"

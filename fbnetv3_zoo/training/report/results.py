"""The result of a run, for scripts: one JSON file in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ...errors import counted
from ...utils.atomic_write import replacing
from ...utils.serialization import json_text
from ..evaluation import Evaluation

RESULTS = "results.json"
"""The file in the folder of a run."""
WIDE = 0.3
"""Width of the 95 % interval of an accuracy from which on there are few images."""


class TimedEpoch(Protocol):
    """An epoch of any kind of run."""

    @property
    def seconds(self) -> float:
        """Its duration."""


def write_results(
    folder: Path, network: str, data: str, images: Mapping[str, int], classes: Sequence[str], *, seed: int,
    epochs: Sequence[TimedEpoch], measured: Mapping[str, object],
) -> None:  # fmt: skip
    """Write what a run had, took and gave into its ``folder``; ``measured`` is what this kind of run measures."""
    values = {
        "format": "fbnetv3_zoo.results",
        "version": 1,
        "model": "model.safetensors",
        "network": network,
        "data": data,
        "images": images,
        "classes": classes,
        "seed": seed,
        "epochs": len(epochs),
        "seconds": round(sum(epoch.seconds for epoch in epochs), 2),
        **measured,
    }
    with replacing(folder / RESULTS) as temporary:
        temporary.write_text(json_text(values, indent=1) + "\n", encoding="utf-8")


def hint_on(split: str, measured: Evaluation) -> str:
    """One line on the number of images of ``split``, if accuracy is known to no more than ±15 points; else empty."""
    low, high = measured.interval
    if high - low <= WIDE:
        return ""
    images = counted(measured.total, f"{split} image")
    return f"{images} measure accuracy only to ±{50 * (high - low):.0f} points; use more images for a surer figure"

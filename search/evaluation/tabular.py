"""Recorded learning curves: stored in one file, and replayed as if candidates were trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.errors import ZooError, nearest
from fbnetv3_zoo.utils.checksummed import ChecksummedFormat
from fbnetv3_zoo.utils.paths import exists

from ..space import Candidate, Codes, CostModel, Costs, Recipes, Space

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_FILE = ChecksummedFormat(
    "a recording", "fbnetv3_zoo.recording 1", "Recording.save", "save it again",
    arrays={"codes": "iu", "curves": "f"}, metadata=("space",), others="f",
)  # fmt: skip
_STATISTIC, _TEST = "statistic.", "test_curves"


@dataclass(frozen=True, eq=False)
class Recording:
    """Learning curves of points of a space, and their free statistics.

    ``codes`` has shape (points, dimensions), each point once. ``curves`` has shape (points, repeats, epochs), higher is
    better, with one epoch if only final scores are known. Shorter curves are padded with NaN at the end, and so are
    missing repeats; every point has at least one.
    ``statistics`` are by name, each of shape (points,). ``test_curves``, if there are any, are the same trainings
    scored on images that no search may see: of the shape of ``curves``, with NaN in the same places.
    """

    space: Space
    codes: Codes
    curves: Doubles
    statistics: Costs = field(default_factory=dict)
    test_curves: Doubles | None = None

    def __post_init__(self) -> None:
        codes = self.space.check(self.codes).copy()
        curves = np.array(self.curves, np.float64)
        if curves.ndim != 3 or len(curves) != len(codes) or 0 in curves.shape:
            raise ZooError(
                f"curves have shape {curves.shape}; give ({len(codes)} points, repeats, epochs), none of them 0"
            )
        statistics = {name: np.array(values, np.float64) for name, values in self.statistics.items()}
        for name, values in statistics.items():
            if values.shape != (len(codes),) or not np.isfinite(values).all():
                raise ZooError(f"statistic {name}: give one finite number for each of the {len(codes)} points")
        _check_gaps(curves)
        test_curves = None if self.test_curves is None else np.array(self.test_curves, np.float64)
        if test_curves is not None:
            if test_curves.shape != curves.shape or (np.isfinite(test_curves) != np.isfinite(curves)).any():
                raise ZooError(f"test_curves: give scores of the shape {curves.shape}, for the same epochs as curves")
            test_curves.flags.writeable = False
        for array in (codes, curves, *statistics.values()):
            array.flags.writeable = False
        object.__setattr__(self, "codes", codes)
        object.__setattr__(self, "curves", curves)
        object.__setattr__(self, "statistics", statistics)
        object.__setattr__(self, "test_curves", test_curves)
        if len(self._rows) < len(codes):
            raise ZooError(
                f"codes have {len(codes) - len(self._rows)} points twice; give a point's curves as its repeats"
            )

    def __len__(self) -> int:
        return len(self.codes)

    @cached_property
    def lengths(self) -> Ints:
        """The number of epochs of every curve, shape (points, repeats); 0 for a missing repeat."""
        lengths: Ints = np.isfinite(self.curves).sum(2)
        return lengths

    @cached_property
    def scores(self) -> Doubles:
        """The last score of every curve, shape (points, repeats); NaN for a missing repeat."""
        return self._last(self.curves)

    @cached_property
    def mean(self) -> Doubles:
        """The mean over repeats of :attr:`scores`, shape (points,)."""
        mean: Doubles = np.nanmean(self.scores, axis=1)
        return mean

    @cached_property
    def test_mean(self) -> Doubles:
        """The mean over repeats of the last score on test images, shape (points,). Raises if there are none."""
        if self.test_curves is None:
            raise ZooError("the recording has no scores on test images")
        mean: Doubles = np.nanmean(self._last(self.test_curves), axis=1)
        return mean

    def _last(self, curves: Doubles) -> Doubles:
        last = np.maximum(self.lengths - 1, 0)[:, :, None]
        return np.take_along_axis(curves, last, 2)[:, :, 0]

    @cached_property
    def _rows(self) -> dict[bytes, int]:
        return {code.tobytes(): row for row, code in enumerate(self.codes)}

    def rows(self, codes: Codes) -> Ints:
        """The rows of the points ``codes``, shape (points,). Raises if one was not recorded."""
        rows = [self._rows.get(code.tobytes(), -1) for code in self.space.check(codes)]
        if -1 in rows:
            values = self.space.values(np.atleast_2d(codes)[rows.index(-1)])
            shown = ", ".join(f"{name}={value}" for name, value in values.items())
            raise ZooError(f"the recording of {len(self)} points of space {self.space.name} lacks the point {shown}")
        return np.array(rows, np.int64)

    def within(self, space: Space) -> Recording:
        """The part of this recording in ``space``, which has the same dimensions with fewer values."""
        names = [dimension.name for dimension in space.dimensions]
        if names != [dimension.name for dimension in self.space.dimensions]:
            raise ZooError(f"space {space.name} has other dimensions than the recording's space {self.space.name}")
        if space.recipes and self.space.recipes and not _differ_in_values_alone(space.recipes, self.space.recipes):
            raise ZooError(
                f"space {space.name} has recipes that differ from those of the recording's space {self.space.name} in "
                "what is not searched; use the recording's own space"
            )
        codes = np.full_like(self.codes, -1)
        for column, (ours, theirs) in enumerate(zip(self.space.dimensions, space.dimensions, strict=True)):
            for index, value in enumerate(theirs.options.values):
                codes[self.codes[:, column] == ours.index(value), column] = index
        rows = np.flatnonzero((codes >= 0).all(1))
        if not len(rows):
            raise ZooError(f"the recording of {len(self)} points has none of space {space.name}")
        return replace(self.part(rows), space=space, codes=codes[rows])

    def part(self, rows: npt.NDArray[np.integer]) -> Recording:
        """The points of ``rows`` alone."""
        statistics = {name: values[rows] for name, values in self.statistics.items()}
        test_curves = None if self.test_curves is None else self.test_curves[rows]
        return Recording(self.space, self.codes[rows], self.curves[rows], statistics, test_curves)

    def save(self, path: str | Path) -> None:
        """Write everything into one safetensors file."""
        arrays: dict[str, npt.NDArray[Any]] = {"codes": self.codes, "curves": self.curves}
        arrays |= {_STATISTIC + name: values for name, values in self.statistics.items()}
        if self.test_curves is not None:
            arrays[_TEST] = self.test_curves
        _FILE.write(path, arrays, {"space": self.space.to_json()})

    @classmethod
    def load(cls, path: str | Path) -> Recording:
        """The recording that :meth:`save` wrote, or the one of :data:`TABLES` with this name.

        Raises :class:`ZooError` if the file is damaged or of another kind.
        """
        path = table_file(path)
        arrays, metadata = _FILE.read(path)
        codes, curves = arrays.pop("codes").astype(np.int64), arrays.pop("curves")
        test_curves = arrays.pop(_TEST, None)
        statistics = {name.removeprefix(_STATISTIC): values for name, values in sorted(arrays.items())}
        try:
            return cls(Space.from_json(metadata["space"]), codes, curves, statistics, test_curves)
        except ZooError as error:
            raise ZooError(f"{path}: {error}") from None


TABLES = ("nars-letters", "nars-emoji")
"""The recordings that come with the package (docs/nars-letters.md)."""


def table_file(table: str | Path) -> Path:
    """The file of a recording: of one that comes with the package if ``table`` is in :data:`TABLES`.

    Raises :class:`ZooError` if there is no such file.
    """
    if table in TABLES:
        return _SHIPPED / f"{table}.safetensors"
    if not exists(table):
        raise ZooError(f"{table}: no such file{nearest(Path(table).name, TABLES)}")
    return Path(table)


_SHIPPED = Path(__file__).parents[1] / "tables"


def record(
    space: Space, curves: Iterable[tuple[Sequence[int], Sequence[float]]], costs: CostModel | None = None
) -> Recording:
    """A recording of (code, learning curve) pairs, such as those of a search, with the statistics of ``costs``.

    Curves may differ in length; several of one code become its repeats, the longest first.
    """
    by_code: dict[tuple[int, ...], list[Sequence[float]]] = {}
    for code, curve in curves:
        by_code.setdefault(tuple(map(int, code)), []).append(curve)
    if not by_code:
        raise ZooError("there are no learning curves to record")
    repeats = max(map(len, by_code.values()))
    epochs = max(len(curve) for of_code in by_code.values() for curve in of_code)
    array = np.full((len(by_code), repeats, epochs), np.nan)
    for row, of_code in zip(array, by_code.values(), strict=True):
        for slot, curve in zip(row, sorted(of_code, key=len, reverse=True), strict=False):
            slot[: len(curve)] = curve
    codes = space.check(np.array(list(by_code)))
    return Recording(space, codes, array, costs(codes) if costs else {})


@dataclass(frozen=True)
class RecordedCurves:
    """An evaluator that looks up curves.

    Which repeat of a point it returns depends on ``seed`` and the point, so that a candidate always has the same curve.
    """

    recording: Recording
    seed: int = 0

    def __call__(self, candidate: Candidate, epochs: int) -> list[float]:
        """The first ``epochs`` scores of a recorded curve. Raises if no curve of the point is long enough."""
        code = self.recording.space.code(candidate.values)
        row = self.recording.rows(code)[0]
        lengths = self.recording.lengths[row]
        fitting = np.flatnonzero(lengths >= epochs)
        if not len(fitting):
            raise ZooError(f"{candidate.name}: {lengths.max()} epochs were recorded; {epochs} are asked for")
        drawn = np.random.default_rng([self.seed, *code.tolist()]).random()
        curve: list[float] = self.recording.curves[row, fitting[int(drawn * len(fitting))], :epochs].tolist()
        return curve


@dataclass(frozen=True)
class RecordedCosts:
    """The recorded statistics as a cost model, for the recorded points only."""

    recording: Recording

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the recorded statistics."""
        return tuple(self.recording.statistics)

    def __call__(self, codes: Codes) -> Costs:
        """The statistics of every point of ``codes``. Raises if one was not recorded."""
        rows = self.recording.rows(codes)
        return {name: values[rows] for name, values in self.recording.statistics.items()}


def _differ_in_values_alone(one: Recipes, other: Recipes) -> bool:
    """Whether the same values give the same recipe, but for the number of epochs."""
    values = {f"recipe.{setting.field}": setting.options.values[0] for setting in one.settings}
    recipes = [replace(which.recipe(values), epochs=1) for which in (one, other)]
    return recipes[0] == recipes[1] and one.rate_factors == other.rate_factors


def _check_gaps(curves: Doubles) -> None:
    if np.isinf(curves).any():
        raise ZooError("curves have an infinite score; leave failed trainings out")
    there = ~np.isnan(curves)
    starts = there[:, :, 0]
    if (there[:, :, 1:] > there[:, :, :-1]).any() or (starts[:, 1:] > starts[:, :-1]).any():
        raise ZooError(
            "curves have NaN before a score; it may only stand after a curve's end and after the last repeat"
        )
    if not starts[:, 0].all():
        raise ZooError(f"curves[{int((~starts[:, 0]).argmax())}] has no score; leave such points out")

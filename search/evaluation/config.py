"""The source of a search's scores and costs, as a value kept in its journal: enough to resume it later."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.utils.serialization import from_plain, to_plain

from ..space import Codes, CostModel, NetworkCosts, Space
from .trial import Evaluator

if TYPE_CHECKING:
    from fbnetv3_zoo.training import Execution

    from .tabular import Recording


@dataclass(frozen=True)
class EvaluatorConfig:
    """Candidates are trained on ``data`` or looked up in the recording ``table``, a file or one of :data:`TABLES`.

    ``data`` is split by ``data_seed``, and restricted to the part in the file ``subset``. ``resolution`` is for models
    without one of their own. ``latency`` is the file of a latency table. ``identity`` identifies the contents of all of
    these, independent of their paths (:meth:`identified`).
    """

    data: str = ""
    data_seed: int = 0
    subset: str = ""
    resolution: int = 224
    table: str = ""
    latency: str = ""
    identity: str = ""

    def __post_init__(self) -> None:
        if bool(self.data) == bool(self.table):
            raise ZooError("a search needs data to train on (--data) or a recording (--table), one of the two")

    @property
    def absolute(self) -> EvaluatorConfig:
        """The same with absolute paths; names of what comes with the package stay."""
        from .tabular import TABLES

        data, subset, table, latency = (
            path if path in ("", *named) else str(Path(path).absolute())
            for path, named in ((self.data, ("digits",)), (self.subset, ()), (self.table, TABLES), (self.latency, ()))
        )
        return replace(self, data=data, subset=subset, table=table, latency=latency)

    def identified(self) -> EvaluatorConfig:
        """The same with the identity of the current contents. Raises :class:`ZooError` if they cannot be read."""
        from fbnetv3_zoo.utils.paths import read_file

        from .tabular import table_file

        parts = []
        if self.data:
            from .training import opened

            opened.cache_clear()  # the data may have changed since
            parts.append(opened(self.data, self.data_seed, self._subset).fingerprint)
        table = self.table and table_file(self.table)
        for kind, path in (("recording", table), ("latency table", self.latency)):
            if path:
                parts.append(f"{kind} {hashlib.sha256(read_file(Path(path), f'a {kind}')).hexdigest()[:16]}")
        return replace(self, identity="; ".join(parts))

    def evaluator(self, space: Space, execution: Execution) -> Evaluator:
        """The evaluator of the candidates of ``space``."""
        if self.table:
            from .tabular import RecordedCurves

            return RecordedCurves(self._recording.within(space))
        from .training import TrainingEvaluator, check_model

        if space.model:
            check_model(space.model)
        return TrainingEvaluator(self.data, self.data_seed, self._subset, execution, self.resolution)

    @property
    def _subset(self) -> Path | None:
        return Path(self.subset) if self.subset else None

    def costs(self, space: Space) -> CostModel | None:
        """The free statistics of the points of ``space``; None if there are none beside the counts of its networks.

        For a space without networks, they are looked up in the recording.
        """
        if self.table and space.networks is None:
            from .tabular import RecordedCosts

            return RecordedCosts(self._recording.within(space))
        return measured_costs(space, self.latency) if self.latency else None

    def points(self, space: Space) -> Codes | None:
        """The points of the recording; None if every point can be scored."""
        return self._recording.within(space).codes if self.table else None

    @cached_property
    def _recording(self) -> Recording:
        from .tabular import Recording

        return Recording.load(self.table)

    def to_plain(self) -> dict[str, Any]:
        """Plain data, for the journal."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> EvaluatorConfig:
        """The inverse of :meth:`to_plain`."""
        return from_plain(cls, dict(data), "origin")


def measured_costs(space: Space, latency: str | Path) -> NetworkCosts:
    """The costs of the networks of ``space``, with those of the latency table in the file ``latency``."""
    from fbnetv3_zoo.arch.latency import LatencyTable

    return NetworkCosts(space, latency=LatencyTable.load(latency))

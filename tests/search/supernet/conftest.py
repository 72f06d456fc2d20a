"""The search that several modules look at."""

from __future__ import annotations

import pytest
from runs import few_digits
from supernet_jobs import PLAN

from fbnetv3_zoo.search.supernet.result import SupernetResult
from fbnetv3_zoo.search.supernet.run import search_supernet
from fbnetv3_zoo.training import Dataset


@pytest.fixture(scope="session")
def data() -> Dataset:
    return few_digits()


@pytest.fixture(scope="session")
def straight(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> SupernetResult:
    """A search that was never interrupted. Its folder is only read."""
    return search_supernet(PLAN, data, tmp_path_factory.mktemp("straight"), report=False)

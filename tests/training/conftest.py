"""Training runs that several modules look at."""

from __future__ import annotations

from collections.abc import Iterator

import forks
import pytest
from runs import RECIPE, few_digits

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.training import Dataset, Run, train


@pytest.fixture(scope="session")
def data() -> Dataset:
    return few_digits()


@pytest.fixture(scope="session")
def finished(tiny_arch: Arch, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted run of three epochs. Its folder is only read."""
    return train(tiny_arch, data, RECIPE, tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="session")
def server() -> Iterator[forks.Server]:
    with forks.serving() as running:
        yield running

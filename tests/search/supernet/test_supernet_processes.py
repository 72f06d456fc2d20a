"""Supernets searched by two processes over gloo: one supernet, the same choices, exact resume, SIGTERM."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from forks import Job, Server
from jobs import INTERRUPTED
from runs import checkpoints, metadata
from supernet_jobs import assert_same, serving

from fbnetv3_zoo.training import Execution
from fbnetv3_zoo.utils.serialization import to_json


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


@pytest.fixture(scope="module")
def straight(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Job]:
    """The folder of an uninterrupted search of two processes, and what they told. Only read."""
    folder = tmp_path_factory.mktemp("straight")
    told = server("search", size=2, **_job(folder))
    assert told["codes"] == [0, 0], told
    return folder, told


EVERY_STEP = Execution(checkpoint_steps=1)


def _job(folder: Path, execution: Execution = EVERY_STEP) -> Job:
    return {"folder": str(folder), "execution": to_json(execution)}


def test_two_processes_end_with_one_supernet(straight: tuple[Path, Job]) -> None:
    """Parameters, logits among them, and all figures: what the second tells is what the first tells last."""
    leader, other = straight[1]["lines"]
    steps = [*(f"step 1 {n}" for n in range(1, 4)), "epoch 1", *(f"step 2 {n}" for n in range(1, 6)), "epoch 2"]
    assert [line for line in leader if line.startswith(("step", "epoch"))] == steps
    assert leader[-2:] == other
    assert [line.split()[0] for line in sorted(other)] == ["parameters", "result"]


@pytest.mark.parametrize("steps", [4, 7], ids=["weights", "choices"])
def test_two_processes_that_are_killed_go_on_to_the_same(
    steps: int, straight: tuple[Path, Job], server: Server, tmp_path: Path
) -> None:
    assert server("search", size=2, kill={"steps": steps}, **_job(tmp_path))["codes"] == [-signal.SIGKILL] * 2
    assert metadata(checkpoints(tmp_path)[0])["progress"]["epoch"] == 1
    last = server("search", size=2, **_job(tmp_path))
    assert last["codes"] == [0, 0], last
    assert last["lines"][1] == straight[1]["lines"][1]
    assert_same(tmp_path, straight[0])


def test_sigterm_to_one_of_two_ends_both(straight: tuple[Path, Job], server: Server, tmp_path: Path) -> None:
    """In the steps of the choices; images are prepared by other processes."""
    told = server("search", size=2, ends=[2, 4], **_job(tmp_path, Execution(workers=1)))
    assert told["codes"] == [INTERRUPTED] * 2, told
    for lines in told["lines"]:
        assert lines[-1] == "interrupted: ended by SIGTERM after step 5 of epoch 2; continue with --resume"
    last = server("search", size=2, **_job(tmp_path))
    assert last["codes"] == [0, 0], last
    assert_same(tmp_path, straight[0])

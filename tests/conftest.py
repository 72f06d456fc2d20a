"""What the tests of several rooms share."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import unpickling
from filelock import FileLock
from hypothesis import HealthCheck, settings

from fbnetv3_zoo.arch import Activation, Arch, Conv, InvertedResidual, PoolingHead, SqueezeExcite
from fbnetv3_zoo.weights import torch_checkpoint

if "OMP_NUM_THREADS" not in os.environ:  # more threads than cores to themselves wait for one another
    torch.set_num_threads(2)

# The user's own cache is neither read nor written; all workers of a run share one.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["FBNETV3_ZOO_CACHE"] = tempfile.mkdtemp(prefix="cache-of-tests-")
    atexit.register(shutil.rmtree, os.environ["FBNETV3_ZOO_CACHE"], ignore_errors=True)

# Background jobs of a shell are deaf to Ctrl-C, and so would be every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run; HYPOTHESIS_PROFILE=explore looks further, with new ones each time.
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("zoo", deadline=None, derandomize=True, max_examples=40, suppress_health_check=_SLOW)
settings.register_profile("explore", deadline=None, max_examples=1000, suppress_health_check=_SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "zoo"))


@pytest.fixture(scope="session")
def tiny_arch() -> Arch:
    """Three stages at 32 px with every kind of thing a block can hold: cheap enough to train in a test."""
    hswish, se = Activation.HARD_SWISH, SqueezeExcite(reduces="input")
    return Arch(
        "tiny",
        32,
        (
            (Conv(3, 8, 2, hswish),),
            (
                InvertedResidual(3, 8, 1, 1, 1, Activation.RELU),
                InvertedResidual(5, 16, 2, 3, 2, hswish, se, zero_init_last_norm=True),
            ),
            (PoolingHead(32, 2, hswish),),
        ),
        num_classes=10,
    )


@pytest.fixture(scope="session")
def smallest_arch() -> Arch:
    """A convolution and a head: exported in a third of the time of the tiny one."""
    stages = ((Conv(3, 8, 2, Activation.RELU),), (PoolingHead(16, 2, Activation.HARD_SWISH),))
    return Arch("smallest", 32, stages, num_classes=10)


@pytest.fixture(autouse=True)
def _forked_unpickling(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints are read by forks of a process that has torch, unless the test is marked ``unforked``."""
    if request.node.get_closest_marker("unforked") is None:
        monkeypatch.setattr(torch_checkpoint, "_read_in_another", unpickling.unpickled)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """A function that gives the folder of a name, filled once in a test run: by the first worker that asks for it."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, fill: Callable[[Path], object]) -> Path:
        path, done = root / f"shared-{name}", root / f"shared-{name}.done"
        with FileLock(root / f"shared-{name}.lock"):
            if not done.exists():
                shutil.rmtree(path, ignore_errors=True)
                path.mkdir()
                fill(path)
                done.touch()
        return path

    return folder


@pytest.fixture(scope="session")
def model_files(tiny_arch: Arch, shared: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The folder of one network as ``net.safetensors``, ``net.onnx`` and so on (networks.write_files). Only read."""
    from networks import write_files  # not needed by most tests, and slow to import

    return shared("model-files", lambda folder: write_files(tiny_arch, folder))

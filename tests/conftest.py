"""What the tests of several rooms share."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile

import pytest
import torch
from hypothesis import HealthCheck, settings

from fbnetv3_zoo.arch import Activation, Arch, Conv, InvertedResidual, PoolingHead, SqueezeExcite

if "OMP_NUM_THREADS" not in os.environ:  # more threads than cores to themselves wait for one another
    torch.set_num_threads(2)

# What is kept of weights and of files that were tried out must not come from, nor go to, the user's own cache.
os.environ["FBNETV3_ZOO_CACHE"] = tempfile.mkdtemp(prefix="cache-of-tests-")
atexit.register(shutil.rmtree, os.environ["FBNETV3_ZOO_CACHE"], ignore_errors=True)

# Background jobs of a shell are deaf to Ctrl-C, and so would be every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run; HYPOTHESIS_PROFILE=explore looks further, with new ones each time.
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("zoo", deadline=None, derandomize=True, suppress_health_check=_SLOW)
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

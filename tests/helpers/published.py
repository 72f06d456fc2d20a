"""Published weights small enough to be served, fetched and checked many times in a test."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.weights.registry import Layout, WeightsEntry, WeightsSource
from fbnetv3_zoo.weights.serialization import save


def weight_file(arch: Arch, *, seed: int = 0) -> bytes:
    """A weight file of ``arch`` with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.safetensors")
        save(FBNet(arch, generator=torch.Generator().manual_seed(seed)), path)
        return path.read_bytes()


def record_of(
    arch: Arch, *sources: str | WeightsSource, tag: str = "test", layout: Layout | None = Layout.OWN
) -> WeightsEntry:
    """A record of weights of ``arch`` that are at ``sources``."""
    places = tuple(WeightsSource(source) if isinstance(source, str) else source for source in sources)
    preprocess = Preprocess.for_arch(arch)
    return WeightsEntry(tag, arch, places, layout, license=None, preprocess=preprocess, imagenet_classes=False)

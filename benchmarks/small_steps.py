"""Forms of a small network's forward and backward pass on one thread, in turn: is another one faster than ours?

    python benchmarks/small_steps.py --rounds 15
    python benchmarks/small_steps.py --rounds 15 --compiled      # torch.compile besides; it takes a minute to begin

The network of ``step_parts.py`` (1.4 MMACs, 32 px). Every form is compared with ours at the same batch size: ratio of
processor time, median and quartiles over the rounds. A ratio above 1 means that ours is faster.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from unittest.mock import patch

import torch
import torch.nn.functional as F
from against_timm import machine
from torch import Tensor, nn

from fbnetv3_zoo.factory import create
from fbnetv3_zoo.zoo import find_arch

SIDE, WIDTH, CLASSES = 32, 0.7, 10


class ShiftedDepthwise(nn.Module):
    """A depthwise convolution as a sum of shifted maps, each times one weight of its channel."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """As the convolution."""
        (side, _), (stride, _), (around, _) = self.conv.kernel_size, self.conv.stride, self.conv.padding
        padded = F.pad(x, (around, around, around, around))
        rows, columns = (1 + (n + 2 * around - side) // stride for n in x.shape[2:])
        weight = self.conv.weight
        total: Tensor | None = None
        for i in range(side):
            for j in range(side):
                part = padded[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride]
                part = part[:, :, :rows, :columns] * weight[:, 0, i, j, None, None]
                total = part if total is None else total + part
        assert total is not None
        return total


def network() -> nn.Module:
    arch = replace(find_arch("fbnetv3_nano"), num_classes=CLASSES, in_channels=1).scaled(width=WIDTH)
    return create(arch, generator=torch.Generator().manual_seed(0)).train()


def shifted() -> nn.Module:
    """With every depthwise convolution as a sum of shifted maps."""
    model = network()
    for module in [*model.modules()]:
        for name, child in [*module.named_children()]:
            if isinstance(child, nn.Conv2d) and child.groups == child.in_channels > 1 and child.dilation == (1, 1):
                setattr(module, name, ShiftedDepthwise(child))
    return model


@contextmanager
def without_onednn() -> Iterator[None]:
    with torch.backends.mkldnn.flags(enabled=False):  # type: ignore[no-untyped-call]
        yield


def as_given() -> AbstractContextManager[object]:
    """A context in which our networks leave the layout of images as it is."""
    return patch("fbnetv3_zoo.models.fbnet.laid_out", lambda images: images)


def step(model: nn.Module, batch: int, context: Callable[[], AbstractContextManager[object]] = nullcontext,
         layout: torch.memory_format = torch.channels_last) -> Callable[[], float]:  # fmt: skip
    """A function that computes gradients once, and returns the processor seconds for an image."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(batch, 1, SIDE, SIDE, generator=generator).contiguous(memory_format=layout)
    labels = torch.arange(batch) % CLASSES

    def run() -> float:
        begun = time.process_time()
        with context():
            loss = F.cross_entropy(model(images).float(), labels)
            loss.backward()
        model.zero_grad()
        return (time.process_time() - begun) / batch

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compiled", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    ours = {batch: step(network(), batch) for batch in (32, 64, 128, 256)}
    forms: dict[str, tuple[int, Callable[[], float]]] = {
        "batches of 32": (64, ours[32]),
        "batches of 128": (64, ours[128]),
        "batches of 256": (64, ours[256]),
        "depthwise convolutions as sums of shifted maps": (64, step(shifted(), 64)),
        "PyTorch's own kernels instead of oneDNN's": (64, step(network(), 64, without_onednn)),
        "maps not channels-last": (64, step(network(), 64, as_given, torch.contiguous_format)),
        "bfloat16": (64, step(network(), 64, lambda: torch.autocast("cpu", torch.bfloat16))),
    }
    if given.compiled:
        compiled = network()
        compiled.compile()
        forms["torch.compile"] = 64, step(compiled, 64)
    print(f"{machine(1)}; {given.rounds} rounds\n\n| form | ours (ms) | ratio | quartiles |\n|---|---:|---:|---:|")
    for name, (batch, form) in forms.items():
        own = ours[batch]
        for warm in (own, form, own, form):
            warm()
        pairs = [(own(), form()) for _ in range(given.rounds)]
        low, ratio, high = statistics.quantiles([theirs / mine for mine, theirs in pairs], n=4)
        milliseconds = 1000 * batch * statistics.median(mine for mine, _ in pairs)
        print(f"| {name} | {milliseconds:.1f} | {ratio:.2f} | {low:.2f} to {high:.2f} |", flush=True)


if __name__ == "__main__":
    main()

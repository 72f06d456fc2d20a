"""Time trunks of detectors up to stride 16: ours of FBNetV3-A and E, detectron2's ResNet-50 C4, MobileNetV3-Large.

One image of 320 x 320 a forward, in evaluation under inference mode, random weights, norms left as they are, on one
thread and on two. First every network is tried in each memory layout (images, and images and weights, channels-last);
the fastest is kept, for each number of threads. Then all are timed in one run, in random order in every round; a ratio
is taken round by round. MACs and parameters are fvcore's and torch's count. Prints a Markdown table; needs the extras
``bench`` and ``dev`` (detectron2's Python tree is that of the tests).

OpenMP's threads wait as ``OMP_WAIT_POLICY`` says, which the heading repeats. By default they spin: good on an idle
machine, ruinous for two threads where something else wants a core; PASSIVE stands that, and costs two threads time.

    python benchmarks/detector_trunks.py --rounds 31
"""

from __future__ import annotations

import argparse
import json
import os
import random
import runpy
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from against_timm import machine, seconds
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large

from fbnetv3_zoo.detection.models.detector import split
from fbnetv3_zoo.detection.models.modules import Trunk
from fbnetv3_zoo.zoo import ARCHS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

SIDE, THREADS = 320, (1, 2)
OURS = ("fbnetv3_a", "fbnetv3_e")
R50, MOBILE = "ResNet-50 C4 (detectron2)", "MobileNetV3-Large (torchvision)"
LAYOUTS = ("contiguous", "images channels-last", "channels-last")


@dataclass(frozen=True)
class Case:
    """A network in a layout on a number of threads."""

    network: str
    layout: str
    threads: int


def our_trunk(name: str) -> nn.Module:
    """The blocks that ``Trunk`` runs, without the layout that it brings images into."""
    detector = split(ARCHS[name])
    return Trunk(detector.trunk_blocks, (detector.stride,)).stages


def resnet50_c4() -> nn.Module:
    from detectron2_tree import installed

    sys.path.insert(0, str(installed()))
    runpy.run_path(str(installed() / "sitecustomize.py"))
    from detectron2.config import get_cfg
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.backbone import build_resnet_backbone

    cfg = get_cfg()
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res4"]
    backbone: nn.Module = build_resnet_backbone(cfg, ShapeSpec(channels=3))
    return backbone


def mobilenet() -> nn.Module:
    """Its blocks before the one that goes to stride 32."""
    blocks: nn.Module = mobilenet_v3_large(weights=None).features[:13]
    return blocks


def networks() -> dict[str, Callable[[], nn.Module]]:
    own = {name: (lambda name=name: our_trunk(name)) for name in OURS}
    return {**own, R50: resnet50_c4, MOBILE: mobilenet}


def last_map(answer: Tensor | Mapping[str, Tensor]) -> Tensor:
    return answer if isinstance(answer, Tensor) else list(answer.values())[-1]


def forward(model: nn.Module, layout: str) -> Callable[[], Tensor]:
    """One forward; checks that the map is that of stride 16."""
    images = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    if layout != LAYOUTS[0]:
        images = images.contiguous(memory_format=torch.channels_last)
    if layout == LAYOUTS[2]:
        model = model.to(memory_format=torch.channels_last)

    def work() -> Tensor:
        with torch.inference_mode():
            return last_map(model(images))

    assert work().shape[2:] == (SIDE // 16, SIDE // 16)
    return work


def timed(work: Mapping[Case, Callable[[], Tensor]], rounds: int, seed: int) -> dict[Case, list[float]]:
    """Seconds of every case in every round, each after a forward that does not count, in random order."""
    times: dict[Case, list[float]] = {case: [] for case in work}
    order, generator = list(work), random.Random(seed)
    for _ in range(rounds):
        generator.shuffle(order)
        for case in order:
            torch.set_num_threads(case.threads)
            work[case]()
            times[case].append(seconds(work[case]))
    return times


def fastest(times: Mapping[Case, list[float]]) -> list[Case]:
    """For every network and number of threads the case with the lowest median, in order."""
    best: dict[tuple[int, str], Case] = {}
    for case in times:
        place = (case.threads, case.network)
        if place not in best or statistics.median(times[case]) < statistics.median(times[best[place]]):
            best[place] = case
    return list(best.values())


def size(model: nn.Module) -> tuple[int, int]:
    """MACs of an image, and parameters, those of fixed norms (buffers there) left out."""
    count = FlopCountAnalysis(model, torch.zeros(1, 3, SIDE, SIDE))
    macs: int = count.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()
    return macs, sum(parameter.numel() for parameter in model.parameters())


def quartiles(values: Iterable[float]) -> str:
    low, middle, high = statistics.quantiles(list(values), n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def line(case: Case, cases: Iterable[Case], times: Mapping[Case, list[float]], counted: tuple[int, int]) -> str:
    beside = {other.network: times[other] for other in cases if other.threads == case.threads}
    ratios = (
        quartiles(a / b for a, b in zip(times[case], beside[name], strict=True)) if name != case.network else "1"
        for name in (R50, MOBILE)
    )
    macs, parameters = counted
    low, median, high = (1e3 * value for value in statistics.quantiles(times[case], n=4))
    cells = (
        case.network, str(case.threads), f"{macs / 1e9:.2f}", f"{parameters / 1e6:.2f}", case.layout,
        f"{median:.1f} ({low:.1f} to {high:.1f})", *ratios,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--trial-rounds", type=int, default=9, help="rounds in which layouts are chosen")
    parser.add_argument("--json", type=Path, help="where to write all times (seconds)")
    options = parser.parse_args()
    makers = networks()
    counted = {name: size(make().eval()) for name, make in makers.items()}
    variants = {(name, layout): forward(make().eval(), layout) for name, make in makers.items() for layout in LAYOUTS}
    work = {Case(name, layout, n): variants[name, layout] for n in THREADS for name in makers for layout in LAYOUTS}
    trial = timed(work, options.trial_rounds, seed=0)
    cases = fastest(trial)
    times = timed({case: work[case] for case in cases}, options.rounds, seed=1)

    waiting = os.environ.get("OMP_WAIT_POLICY", "by default")
    print(f"{machine().replace(', one thread', '')}; OpenMP waits {waiting}; {options.rounds} rounds\n")
    print(
        f"| trunk | threads | GMACs | M parameters | fastest layout | ms, median (quartiles) | to {R50} | to {MOBILE} |"
    )
    print("|---|---:|---:|---:|---|---:|---:|---:|")
    for case in cases:
        print(line(case, cases, times, counted[case.network]))
    print("\nTrial of layouts, median in ms:\n")
    for case, found in trial.items():
        print(f"- {case.network}, {case.layout}, threads {case.threads}: {1e3 * statistics.median(found):.1f}")
    if options.json:
        rows = [{**vars(case), "seconds": found} for case, found in times.items()]
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

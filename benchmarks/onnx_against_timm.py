"""Time our ONNX files against timm's export of the same network with the same weights, on ONNX Runtime.

Both have a dynamic batch and are given one image at a time, in turn (A B A B ...), on one thread and on two; a ratio is
taken pair by pair. Also prints how far a file's logits are from those of timm's on 20 photographs, as a part of the
largest of the image, at most (on noise, drawn weights make rounding errors grow), and what our graph takes without maps
widened to a multiple of 16. Prints a Markdown table; needs the extra ``dev``.

    python benchmarks/onnx_against_timm.py --rounds 101
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import timm
import torch
from against_timm import machine
from safetensors.torch import save_file
from sample_photographs import photographs
from torch import nn

import fbnetv3_zoo
from fbnetv3_zoo.export import export_onnx
from fbnetv3_zoo.preprocess import stack

Run = Callable[[np.ndarray], Any]
NAMES = ("fbnetv3_b", "fbnetv3_d", "fbnetv3_g")


def settled(name: str) -> nn.Module:
    """Timm's network with norms that have seen photographs, so that no signal vanishes."""
    torch.manual_seed(0)
    network = timm.create_model(name, exportable=True)
    preprocess = fbnetv3_zoo.create(name).preprocess
    images = torch.from_numpy(stack(preprocess, photographs(16)))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(images)
    return network.eval()


def files(name: str, folder: Path) -> dict[str, Path]:
    """Timm's file and ours in every form."""
    theirs = settled(name)
    save_file({key: value.contiguous() for key, value in theirs.state_dict().items()}, folder / "weights.safetensors")
    ours = fbnetv3_zoo.create(name, pretrained=folder / "weights.safetensors").eval()
    side = ours.preprocess.resolution
    example = torch.zeros(2, 3, side, side)
    found = {"timm": folder / "timm.onnx", "ours": folder / "ours.onnx", "ours, not widened": folder / "narrow.onnx"}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            theirs, (example,), found["timm"], dynamo=True, input_names=["images"], external_data=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )  # fmt: skip
    export_onnx(ours, found["ours"], batch_sizes=[1])
    export_onnx(ours, found["ours, not widened"], align=1, batch_sizes=[1])
    return found


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.force_spinning_stop", "1")  # the waiting must not slow the working down
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_of(opened: onnxruntime.InferenceSession) -> Run:
    return lambda image: opened.run(None, {"images": image})


def times(runs: dict[str, Run], image: np.ndarray, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each, round by round, the order turning."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for number in range(rounds + 5):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            started = time.perf_counter()
            runs[name](image)
            if number >= 5:
                found[name].append((time.perf_counter() - started) * 1e3)
    return found


def farthest(answers: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of a logit from ``expected``, as a part of the largest logit of its image."""
    apart = np.abs(answers - expected).max(axis=1) / np.abs(expected).max(axis=1)
    return float(apart.max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--networks", nargs="*", default=NAMES)
    options = parser.parse_args()
    print(f"{machine()}; onnxruntime {onnxruntime.__version__}; {options.rounds} rounds\n")
    print("| network | threads | file | ms | ratio to timm's (median) | quartiles | logits apart |")
    print("|---|---:|---|---:|---:|---:|---:|")
    for name in options.networks:
        with tempfile.TemporaryDirectory() as folder:
            found = files(name, Path(folder))
            images = stack(fbnetv3_zoo.create(name).preprocess, photographs())
            for threads in (1, 2):
                sessions = {kind: session(path, threads) for kind, path in found.items()}
                answers = {kind: one.run(None, {"images": images})[0] for kind, one in sessions.items()}
                apart = {kind: farthest(logits, answers["timm"]) for kind, logits in answers.items()}
                measured = times({kind: run_of(one) for kind, one in sessions.items()}, images[:1], options.rounds)
                for kind, row in measured.items():
                    ratios = [a / b for a, b in zip(row, measured["timm"], strict=True)]
                    low, ratio, high = statistics.quantiles(ratios, n=4)
                    print(
                        f"| {name} | {threads} | {kind} | {statistics.median(row):.2f} | **{ratio:.3f}** | "
                        f"{low:.3f} to {high:.3f} | {apart[kind]:.1e} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()

"""Time loading FBNetV3-E from the cache, digest included, against reading safetensors bare, and against timm.

In turn (A B C A B C ...); a ratio is taken round by round. timm has no E; its network nearest in size is fbnetv3_d
(96 % of the parameters), and its state dict is in memory already. Prints a Markdown table; needs the extra ``dev``.

    python benchmarks/cached_weights.py --rounds 31
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from against_timm import machine, seconds
from safetensors.torch import load_file, save, save_file

from fbnetv3_zoo import WeightsCache, create
from fbnetv3_zoo.weights.registry import find_record


def cases(folder: Path) -> dict[str, Callable[[], object]]:
    """What is timed; ours first."""
    bare, record = folder / "bare.safetensors", find_record("fbnetv3_e")
    tensors = create("fbnetv3_e").state_dict()
    save_file(tensors, bare)
    cache = WeightsCache(folder=folder / "cache", mirror=str(folder / "mirror"), offline=True)
    published = folder / "mirror" / record.name / "model.pth"
    published.parent.mkdir(parents=True)
    torch.save(_official(tensors), published)
    create("fbnetv3_e", pretrained=True, cache=cache)  # into the cache
    cache = WeightsCache(folder=folder / "cache", offline=True)
    in_memory = timm.create_model("fbnetv3_d").state_dict()
    theirs = folder / "timm.safetensors"
    theirs.write_bytes(save(in_memory))
    return {
        "create(pretrained=True) from the cache": lambda: create("fbnetv3_e", pretrained=True, cache=cache),
        "create, plain safetensors, load_state_dict": lambda: create("fbnetv3_e").load_state_dict(load_file(bare)),
        "timm fbnetv3_d: create_model, load_state_dict": lambda: timm.create_model("fbnetv3_d").load_state_dict(
            in_memory
        ),
        "timm fbnetv3_d: the same, plain safetensors": lambda: timm.create_model("fbnetv3_d").load_state_dict(
            load_file(theirs)
        ),
    }


def _official(tensors: dict[str, torch.Tensor]) -> dict[str, object]:
    """Our tensors under the official names, as the publisher's file has them."""
    from fbnetv3_zoo.weights.convert import _names
    from fbnetv3_zoo.weights.registry import Layout

    names = _names(find_record("fbnetv3_e").arch, Layout.OFFICIAL)
    return {"state_dict": {f"module.{theirs}": tensors[ours] for theirs, ours in names}, "model_ema": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        works = cases(Path(folder))
        for work in works.values():
            work()
        times = [[seconds(work) for work in works.values()] for _ in range(rounds)]
    print(f"{machine()}; {rounds} rounds\n")
    print("| what | ms (median) | ours / this | quartiles |")
    print("|---|---:|---:|---:|")
    for n, label in enumerate(works):
        ratios = [row[0] / row[n] for row in times]
        low, ratio, high = statistics.quantiles(ratios, n=4)
        shown = f"**{ratio:.2f}** | {low:.2f} to {high:.2f}" if n else "1 | -"
        print(f"| {label} | {statistics.median(row[n] for row in times) * 1e3:.0f} | {shown} |")


if __name__ == "__main__":
    main()

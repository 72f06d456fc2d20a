"""Run every command under strace, offline, and tell what it connects to and what it leaves in the user's home.

No command may address anything but this machine, be it a name server, and in the home there may be this program's own
cache and what is known to be harmless (HARMLESS). Commands run in one folder, in turn, on tiny inputs; later ones use
what earlier ones wrote. A command of the command line that is not run here is a failure, too.

    python benchmarks/connections.py
    python benchmarks/connections.py --quick                # each native library once
    python benchmarks/connections.py --runtime package.tgz  # an onnxruntime-web, for a page that is written, too
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import typer
from tracing import OURS, Traced, fbnetv3

from fbnetv3_zoo.cli import app

HARMLESS = {
    OURS: "this program's own cache",
    ".cache/matplotlib": "the list of fonts that matplotlib found here",
    ".ray/auth_token": "what Ray's processes know one another by",
}
"""What may lie in the home after a command, and why."""


@dataclass(frozen=True)
class Command:
    """What is called, in the folder of all; with ``status`` another exit code than 0 is what it must end with."""

    arguments: str
    status: int = 0
    quick: bool = False
    visited: bool = False  # a server: asked for one page, then interrupted


REFUSED = 2
DIGITS = "--data digits --epochs 1 --batch-size 256"
BOXES = "--annotations boxes/shapes.json"
ROUTES = "eager,compiled,onnxruntime,onnxruntime-int8,openvino,openvino-bf16,openvino-int8,executorch,ncnn,"
ROUTES += "litert,litert-int8"
SEARCH = "--plan tiny --data digits --rounds 1 --batch 2 --epochs 1"
COMMANDS = (
    Command("list"),
    Command("info fbnetv3_a", quick=True),
    Command("info m.safetensors"),
    Command("recipe list"),
    Command("recipe show fbnetv3_g"),
    Command("weights list"),
    Command("weights fetch fbnetv3_e", REFUSED, quick=True),
    Command("weights fetch fbnetv2_f1 --mirror mirror", REFUSED),
    Command("weights convert state.pth --model arch.json --output converted.safetensors"),
    Command("weights card m.safetensors"),
    Command("weights card fbnetv3_e"),
    Command("weights verify"),
    Command("weights prune"),
    Command("subset digits --classes 4 --held-out 40 --output subset.json"),
    Command("data pack digits --size 8 --output packed.safetensors"),
    Command("data letters --fonts fonts --output letters.safetensors"),
    Command("data emoji --drawings a=drawn/a --drawings b=drawn/b --drawings c=drawn/c --held-out c", quick=True),
    Command(f"train --model arch.json {DIGITS} --output trained", quick=True),
    Command("train letters.safetensors --model arch.json --epochs 1 --batch-size 64 --output letters"),
    Command(f"train --model arch.json {DIGITS} --output trained --resume"),
    Command(f"train --model arch.json {DIGITS} --output events --workers 2 --tensorboard"),
    Command(f"train --model arch.json {DIGITS} --output compiled --compile"),
    Command(f"train --model fbnetv3_e --pretrained {DIGITS} --output tuned", REFUSED),
    Command(f"train --model arch.json --weights hf-hub:someone/something {DIGITS} --output hub", REFUSED, quick=True),
    Command(f"train --model arch.json --weights https://localhost.invalid/w.pth {DIGITS} --output web", REFUSED),
    Command(f"distil --models arch.json {DIGITS} --output distilled"),
    Command("export onnx m.safetensors --output m.onnx", quick=True),
    Command("export onnx m.safetensors --output front.onnx --preprocessing --any-size"),
    Command("export mobile m.safetensors --output m.ort --platform amd64"),
    Command("export openvino m.safetensors --output m.xml"),
    Command("export openvino m.onnx --output graph.xml --half", quick=True),
    Command("export executorch m.safetensors --output m.pte", quick=True),
    Command("export litert m.safetensors --output m.tflite", quick=True),
    Command("export ncnn m.safetensors --output m.ncnn.param", quick=True),
    Command("export coreml m.safetensors --output m.mlpackage"),
    Command("export int8 m.onnx --data digits --output int8.onnx"),
    Command("export int8 m.onnx --data digits --output int8.xml", quick=True),
    Command("export int8 m.onnx --data digits --output int8.tflite"),
    Command("export all m.safetensors --data digits --output exports --rounds 3"),
    Command("export web m.onnx --out page", REFUSED),
    Command("export web m.onnx --out page --runtime RUNTIME"),
    Command("serve-demo served --port 0", visited=True, quick=True),
    Command("classify digit.png --model m.safetensors"),
    Command("classify digit.png --model m.onnx"),
    Command("predict digit.png --model int8.onnx"),
    Command("classify digit.png --model m.ort"),
    Command("classify digit.png --model m.xml"),
    Command("classify digit.png --model int8.xml", quick=True),
    Command("classify digit.png --model m.pte"),
    Command("classify digit.png --model m.ncnn.param"),
    Command("classify digit.png --model m.tflite"),
    Command("classify digit.png --model m.mlpackage"),
    Command("classify digit.png --model fbnetv3_e --pretrained", REFUSED),
    Command("classify digit.png --model hf-hub:someone/something", REFUSED),
    Command("validate m.safetensors"),
    Command("validate int8.onnx --workers 1"),
    Command("validate m.pte"),
    Command(f"detect train {BOXES} --validation boxes/shapes.json --model detector.json --settings settings.json "
            "--epochs 1 --batch-size 4 --output detector"),
    Command(f"detect validate detector/model.safetensors {BOXES}"),
    Command("detect predict boxes/0000.png --model detector/model.safetensors --output found"),
    Command("detect export detector/model.safetensors boxes/0000.png boxes/0001.png --output detector.onnx"),
    Command("search space tiny"),
    Command("search plan tiny"),
    Command("search pretrain --plan tiny --pool 200"),
    Command(f"search run {SEARCH} --output here --executor in-process"),
    Command(f"search run {SEARCH} --output pool --executor pool:1 --stages 2"),
    Command("search resume pool"),
    Command(f"search run {SEARCH} --output ray --executor ray --stages 2", quick=True),
    Command("search resume ray --executor ray"),
    Command("search status here"),
    Command("search export here --output results"),
    Command("search report here"),
    Command("search evolve here --constraint macs<=0.5M"),
    Command("search lut --space tiny --networks 1 --rounds 3 --check 0 --output latency.json"),
    Command("search dnas --data digits --epochs 1 --output dnas"),
    Command("search report dnas"),
    Command("search dmasking --data digits --epochs 1 --output dmasking"),
    Command(f"benchmark m.safetensors --rounds 3 --batches 1 --threads 1 --routes {ROUTES} --profile --output bench"),
    Command("demo --epochs 1 --output demo"),
)  # fmt: skip


def names(command: Any, of: tuple[str, ...] = ()) -> Iterator[str]:
    """The commands below ``command``, such as "export onnx"."""
    children = getattr(command, "commands", None)
    if children is None:
        yield " ".join(of)
        return
    for name, child in children.items():
        yield from names(child, (*of, name))


def uncovered(commands: Sequence[Command]) -> list[str]:
    """The commands of the command line that are not among ``commands`` with an end of their own kind."""
    called = [f"{command.arguments} " for command in commands]
    return [name for name in names(typer.main.get_command(app)) if not any(c.startswith(f"{name} ") for c in called)]


def make_inputs(folder: Path) -> None:
    """The files that commands begin with."""
    import drawings
    import fonts
    import shapes
    import torch

    from fbnetv3_zoo.arch import Activation, Arch, Conv, InvertedResidual, PoolingHead, SqueezeExcite
    from fbnetv3_zoo.detection import RCNNSettings
    from fbnetv3_zoo.export.web.folder import CARD, FORMAT, VERSION
    from fbnetv3_zoo.models.fbnet import FBNet
    from fbnetv3_zoo.training import find_dataset
    from fbnetv3_zoo.utils.serialization import to_json
    from fbnetv3_zoo.weights.serialization import save
    from fbnetv3_zoo.zoo import ARCHS

    hswish, se = Activation.HARD_SWISH, SqueezeExcite(reduces="input")
    blocks = (InvertedResidual(3, 8, 1, 1, 1, hswish), InvertedResidual(5, 16, 2, 3, 2, hswish, se))
    stages = ((Conv(3, 8, 2, hswish),), blocks, (PoolingHead(32, 2, hswish),))
    arch = Arch("tiny", 32, stages, num_classes=10, in_channels=1)
    (folder / "arch.json").write_text(arch.to_json())
    (folder / "detector.json").write_text(ARCHS["fbnetv3_a"].scaled(width=0.25, depth=0.25).to_json())
    settings = RCNNSettings(min_size=64, max_size=64, anchor_sizes=(12, 18), aspect_ratios=(1.0,), proposals=20,
                        proposals_in_training=50, regions_in_training=16, score_threshold=0.0)  # fmt: skip
    (folder / "settings.json").write_text(to_json(settings))
    shapes.write(folder / "boxes", 4, seed=0, side=64, objects=2)
    model = FBNet(arch, generator=torch.Generator().manual_seed(0)).eval()
    save(model, folder / "m.safetensors")
    torch.save(model.state_dict(), folder / "state.pth")
    shutil.copytree(fonts.SHIPPED, folder / "fonts")
    for name, color in (("a", "#f00"), ("b", "#0a0"), ("c", "#00f")):
        drawings.write_vendor(folder / "drawn" / name, color)
    find_dataset("digits", seed=0)["test"][0].read().save(folder / "digit.png")
    (folder / "mirror").mkdir()
    (folder / "served").mkdir()
    (folder / "served" / "index.html").write_text("<!doctype html><title>page</title>")
    card = {"format": FORMAT, "format_version": VERSION, "files": ["index.html"]}
    (folder / "served" / CARD).write_text(json.dumps(card))


def faults(command: Command, seen: Traced) -> list[str]:
    """What is not as it should be."""
    found = [f"connects to {place}" for place in seen.elsewhere]
    found += [f"leaves ~/{place}" for place in seen.left if not any(place.startswith(known) for known in HARMLESS)]
    if seen.code != command.status:
        found.append(f"ends with {seen.code}: {seen.err.strip()[-300:]}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="only those that show each native library once")
    parser.add_argument("--only", nargs="*", help="only commands that begin so")
    parser.add_argument("--runtime", type=Path, help="an unpacked onnxruntime-web or its .tgz; without it no page")
    parser.add_argument("--folder", type=Path, help="keep the commands' files here, and use those that there are")
    options = parser.parse_args()
    if shutil.which("strace") is None:
        sys.exit("no strace: install the Debian package strace")
    if missing := uncovered(COMMANDS):
        sys.exit(f"not run here: {', '.join(missing)}")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so is a background job's, and its children's with it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with TemporaryDirectory() as name:
        folder = (options.folder or Path(name, "work")).absolute()
        if not folder.exists():
            folder.mkdir(parents=True)
            make_inputs(folder)
        chosen = [command for command in COMMANDS if _wanted(command, options)]
        sys.exit(1 if run_all(chosen, folder, options.runtime) else 0)


def _wanted(command: Command, options: argparse.Namespace) -> bool:
    if "RUNTIME" in command.arguments and options.runtime is None:
        return False
    begins = options.only is None or any(command.arguments.startswith(start) for start in options.only)
    return begins and (command.quick or not options.quick)


def run_all(commands: Sequence[Command], folder: Path, runtime: Path | None) -> int:
    """Run ``commands`` and print the table; how many of them were not as they should be."""
    print("| command | exit | connects | beyond this machine | in the home | s |\n|---|---|---|---|---|---|")
    wrong = []
    for command in commands:
        words = [str(runtime.absolute()) if word == "RUNTIME" and runtime else word
                 for word in command.arguments.split()]  # fmt: skip
        started = time.monotonic()
        seen = fbnetv3(*words, cwd=folder, visited=command.visited)
        beyond, left = ("; ".join(some) or "-" for some in (seen.elsewhere, seen.left))
        seconds = time.monotonic() - started
        print(
            f"| {command.arguments} | {seen.code} | {seen.connects} | {beyond} | {left} | {seconds:.0f} |", flush=True
        )
        wrong += [f"{command.arguments}: {fault}" for fault in faults(command, seen)]
    print(f"\n{len(commands)} commands, {len(wrong)} faults", *wrong, sep="\n")
    return len(wrong)


if __name__ == "__main__":
    main()

"""What kills.py runs: every command that writes files; and what it leaves out, with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import typer

from fbnetv3_zoo.cli import app


@dataclass(frozen=True)
class Command:
    """What is called, OUT and the names of :mod:`kill_files` standing for paths.

    ``resumed`` continues a run: options, or a command. ``begins_with`` names what lies in OUT before.
    """

    name: str
    arguments: str
    resumed: str = ""
    begins_with: str = ""
    fresh: bool = False  # refuses to begin over its results, or has nothing to do then: every kill begins anew


DIGITS = "--data digits --epochs 1 --batch-size 256"
BOXES = "--annotations BOXES/shapes.json --validation BOXES/shapes.json --epochs 1 --batch-size 4"
TINY = "search run --plan tiny --data digits --rounds 1 --batch 2 --epochs 1 --output OUT"
SUPERNET = "--data digits --epochs 1"
COMMANDS = (
    Command("train", f"train --model ARCH {DIGITS} --output OUT --checkpoint-steps 2", "--resume", fresh=True),
    Command("distil", f"distil --models ARCH {DIGITS} --output OUT", "--resume", fresh=True),
    Command("export onnx", "export onnx MODEL --output OUT/m.onnx"),
    Command("export mobile", "export mobile MODEL --output OUT/m.ort"),
    Command("export openvino", "export openvino MODEL --output OUT/m.xml"),
    Command("export executorch", "export executorch MODEL --output OUT/m.pte"),
    Command("export litert", "export litert MODEL --output OUT/m.tflite"),
    Command("export ncnn", "export ncnn MODEL --output OUT/m.ncnn.param"),
    Command("export coreml", "export coreml MODEL --output OUT/m.mlpackage"),
    Command("export int8", "export int8 ONNX --data digits --output OUT/i.onnx"),
    Command("export int8 (OpenVINO)", "export int8 ONNX --data digits --output OUT/i.xml"),
    Command("export int8 (LiteRT)", "export int8 ONNX --data digits --output OUT/i.tflite"),
    Command("export all", "export all MODEL --data digits --formats int8 --no-timing --output OUT/all"),
    Command("export web", "export web MODEL --output OUT/page --runtime RUNTIME"),
    Command("subset", "subset digits --classes 4 --held-out 40 --output OUT/s.json"),
    Command("data pack", "data pack digits --size 8 --output OUT/p.safetensors"),
    Command("data letters", "data letters --fonts FONTS --output OUT/l.safetensors"),
    Command("data emoji", "data emoji --drawings a=DRAWN/a --drawings b=DRAWN/b --drawings c=DRAWN/c --held-out c "
            "--output OUT/e.safetensors"),
    Command("search run", TINY, resumed="search resume OUT", fresh=True),
    Command("search pretrain", "search pretrain --plan tiny --pool 256 --output OUT/e.safetensors"),
    Command("search evolve", "search evolve OUT --constraint macs<=0.6M", begins_with="SEARCH"),
    Command("search export", "search export SEARCH --output OUT"),
    Command("search report", "search report SEARCH --output OUT/r.html"),
    Command("search dnas", f"search dnas {SUPERNET} --output OUT", "--resume", fresh=True),
    Command("search dmasking", f"search dmasking {SUPERNET} --output OUT", "--resume", fresh=True),
    Command("search lut", "search lut --space tiny --networks 1 --rounds 3 --check 0 --output OUT/t.json", fresh=True),
    Command("weights fetch", "weights fetch fbnetv2_f1 --cache OUT --mirror MIRROR --lock OUT/l.json", fresh=True),
    Command("weights prune", "weights prune --all --cache OUT", begins_with="CACHE", fresh=True),
    Command("weights convert", "weights convert STATE --model ARCH --output OUT/c.safetensors"),
    Command("weights card", "weights card MODEL --output OUT/card.md"),
    Command("detect train", f"detect train {BOXES} --model BOXARCH --settings SETTINGS --output OUT", "--resume",
            fresh=True),
    Command("detect predict", "detect predict BOXES/0000.png --model DETECTOR --threshold 0 --output OUT"),
    Command("detect export", "detect export DETECTOR BOXES/0000.png --output OUT/d.onnx"),
    Command("benchmark", "benchmark MODEL --rounds 3 --routes onnxruntime --batches 1 --threads 1 --output OUT"),
    Command("demo", "demo --epochs 1 --output OUT"),
)  # fmt: skip

WRITES_NOTHING = "prints only"
LEFT_OUT = {
    "list": WRITES_NOTHING,
    "info": WRITES_NOTHING,
    "validate": WRITES_NOTHING,
    "classify": WRITES_NOTHING,
    "predict": WRITES_NOTHING,
    "serve-demo": "serves what is there",
    "detect validate": WRITES_NOTHING,
    "recipe list": WRITES_NOTHING,
    "recipe show": WRITES_NOTHING,
    "search status": WRITES_NOTHING,
    "search space": WRITES_NOTHING,
    "search plan": WRITES_NOTHING,
    "weights list": WRITES_NOTHING,
    "weights verify": "reads the cache only",
}
"""Commands that are not killed, and why."""


def uncovered() -> list[str]:
    """What is wrong with the two lists, one line each: every command of the app must be in one of them."""
    called = [text.split() for one in COMMANDS for text in (one.arguments, one.resumed)]
    wrong, known = [], set()
    for words, command in _commands(typer.main.get_command(app)):
        name, killed = " ".join(words), any(text[: len(words)] == list(words) for text in called)
        known.add(name)
        if not killed and name not in LEFT_OUT:
            wrong.append(f"{name}: neither among COMMANDS nor among LEFT_OUT")
        if name in LEFT_OUT and (killed or _has_output(command)):
            wrong.append(f"{name}: is left out though it is killed, or takes an output")
    return [*wrong, *(f"{name}: is no command" for name in LEFT_OUT if name not in known)]


def _has_output(command: Any) -> bool:
    return any("output" in one.name or one.opts[0].startswith("--out") for one in command.params)


def _commands(command: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, sub in getattr(command, "commands", {}).items():
        yield from _commands(sub, (*names, name))
    if not hasattr(command, "commands"):
        yield names, command

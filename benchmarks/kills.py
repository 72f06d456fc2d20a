"""Kill every writing command before chosen changes of its to the disk, and let the disk be full.

Every command runs once to its end; what it left are the old results. Then it is run over them again and again, each
time killed (SIGKILL) before another one of its changes to the file system (files opened for writing, moved, linked,
removed; folders made and removed), chosen evenly over all of them. In every folder lie files that look like temporary
ones and are not. After every kill: no such file is touched, and every file of the results is whole (it is read). After
the next run: nothing of the killed one is left, beside the results or in TMPDIR. Last, the command runs over its
results on a disk without room: it says so in one line, and the results are the old ones.

    python benchmarks/kills.py
    python benchmarks/kills.py --kills 20 --only train "export openvino"
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from disks import small_disk

from fbnetv3_zoo.atomic import settled
from fbnetv3_zoo.model import FBNet
from fbnetv3_zoo.weights.files import read_tensors, save
from fbnetv3_zoo.zoo import ARCHS

ROOT = Path(__file__).resolve().parents[1]
DECOYS = (".thesis.20251231.tex", ".x.deadbeef.json", ".foo.abcdefgh.download", ".a.0a1b2c3d.partial", ".lock")
OURS = re.compile(r"\.fbnetv3-zoo-[0-9a-f]{16}")
RUN = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import killed
number = int(sys.argv[3])
if number:
    killed.kill_before(number)
else:
    killed.count_changes()
sys.argv[1:] = sys.argv[4:]
from fbnetv3_zoo.cli import main
main()
"""


@dataclass(frozen=True)
class Command:
    """What is called, with OUT, MODEL, ONNX and ARCH for paths; ``resumed`` continues a run: options, or a command."""

    name: str
    arguments: str
    resumed: str = ""
    fresh: bool = False  # refuses to begin over its results: the killed run begins in an empty folder


DIGITS = "--data digits --epochs 1 --batch-size 256"
COMMANDS = (
    Command("train", f"train --model ARCH {DIGITS} --output OUT --checkpoint-steps 2", "--resume", fresh=True),
    Command("distil", f"distil --models ARCH {DIGITS} --output OUT", "--resume", fresh=True),
    Command("export onnx", "export onnx MODEL --output OUT/m.onnx"),
    Command("export mobile", "export mobile MODEL --output OUT/m.ort"),
    Command("export openvino", "export openvino MODEL --output OUT/m.xml"),
    Command("export executorch", "export executorch MODEL --output OUT/m.pte"),
    Command("export int8", "export int8 ONNX --data digits --output OUT/i.onnx"),
    Command("export int8 (OpenVINO)", "export int8 ONNX --data digits --output OUT/i.xml"),
    Command("export web", "export web MODEL --out OUT/page --runtime RUNTIME"),
    Command("subset", "subset digits --classes 4 --held-out 40 --output OUT/s.json"),
    Command(
        "search run",
        "search run --plan tiny --data digits --rounds 1 --batch 2 --epochs 1 --output OUT",
        resumed="search resume OUT",
        fresh=True,
    ),
    Command("search dnas", "search dnas --data digits --epochs 1 --output OUT", "--resume", fresh=True),
    Command("search lut", "search lut --space tiny --networks 1 --rounds 2 --check 0 --output OUT/t.json"),
    Command("weights convert", "weights convert STATE --model ARCH --output OUT/c.safetensors"),
    Command("weights card", "weights card MODEL --output OUT/card.md"),
    Command("benchmark", "benchmark MODEL --rounds 3 --routes onnxruntime --output OUT"),
    Command("demo", "demo --epochs 1 --output OUT"),
)


@dataclass
class Found:
    """What was seen of a command."""

    changes: int = 0
    kills: int = 0
    left: int = 0
    full: str = ""


class BrokenPromiseError(Exception):
    """A promise that was not kept."""


class Try:
    """One command, in a folder of its own, with TMPDIR and the cache in it."""

    def __init__(self, command: Command, home: Path, made: Path, runtime: Path | None) -> None:
        self.command, self.home, self.out, self.temporary = command, home, home / "out", home / "tmp"
        self.paths = {"STATE": made / "state.pth", "MODEL": made / "m.safetensors", "ONNX": made / "m.onnx",
                      "ARCH": made / "arch.json", "RUNTIME": runtime or ""}  # fmt: skip
        self.found = Found()

    def begin(self) -> None:
        """Empty folders with decoys."""
        shutil.rmtree(self.home, ignore_errors=True)
        for folder in (self.out, self.temporary):
            folder.mkdir(parents=True)
            for name in DECOYS:
                (folder / name).write_text(f"mine: {name}")

    def run(self, number: int, *, again: bool = False) -> subprocess.CompletedProcess[str]:
        """Run the command, killed before its change ``number`` (0: never)."""
        text = self.command.arguments
        if again:
            text = f"{text} {self.command.resumed}" if self.command.resumed.startswith("-") else self.command.resumed
        words = [self.paths.get(word, word) for word in text.split()]
        words = [str(self.out) + str(word)[3:] if str(word).startswith("OUT") else str(word) for word in words]
        environment = {**os.environ, "TMPDIR": str(self.temporary), "FBNETV3_ZOO_CACHE": str(self.home / "cache"),
                       "OMP_NUM_THREADS": "1", "FBNETV3_ZOO_OFFLINE": "1"}  # fmt: skip
        command = [sys.executable, "-c", RUN, str(ROOT / "tests"), str(ROOT), str(number), *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def check(self, *, cleared: bool) -> None:
        """Raise where a decoy is touched, a result damaged, or (``cleared``) something is left."""
        for folder in (self.out, self.temporary):
            for name in DECOYS:
                if not (folder / name).is_file() or (folder / name).read_text() != f"mine: {name}":
                    raise BrokenPromiseError(f"{folder.name}/{name} was touched")
        left = [path for path in self.home.rglob(".fbnetv3-zoo-*") if OURS.fullmatch(path.name)]
        self.found.left += len(left)
        if cleared and left:
            raise BrokenPromiseError(f"{left[0]} is left")
        for path in self.results():
            _read(path)

    def results(self) -> list[Path]:
        files = (path for path in self.out.rglob("*") if path.is_file() and path.name not in DECOYS)
        return [path for path in files if not any(OURS.fullmatch(part) for part in path.parts)]

    def all_kills(self, kills: int) -> Found:
        """Kill it so often, let it end after each."""
        self.begin()
        first = self.run(0)
        if first.returncode:
            raise BrokenPromiseError(f"cannot run: {first.stderr.strip()[-300:]}")
        self.check(cleared=True)
        self.found.changes = changes = int(re.findall(r"changes: (\d+)", first.stderr)[-1])
        for number in sorted({1 + round(n * (changes - 1) / max(1, kills - 1)) for n in range(kills)}):
            if self.command.fresh:
                self.begin()
            done = self.run(number)
            self.found.kills += done.returncode < 0
            self.check(cleared=False)
            done = self.run(0, again=bool(self.command.resumed) and self._has_begun())
            if done.returncode:
                raise BrokenPromiseError(f"after the kill before change {number}: {done.stderr.strip()[-300:]}")
            self.check(cleared=True)
        return self.found

    def _has_begun(self) -> bool:
        return any(path.parent.name == "checkpoints" or path.name == "journal.sqlite" for path in self.results())

    def full_disk(self) -> str:
        """Run it once more on a disk that is as good as full; the line that it says."""
        self.begin()
        kept = self.home / "kept"
        if not self.command.fresh:
            self.run(0)
        self.out.rename(kept)
        size = sum(path.stat().st_size for path in kept.rglob("*") if path.is_file())
        with small_disk(self.out, size + (1 << 20)):
            shutil.copytree(kept, self.out, dirs_exist_ok=True)
            _fill(self.out / "mine.bin")
            before = {path: path.read_bytes() for path in self.results()}
            done = self.run(0)
            self.check(cleared=True)
            if "Traceback" in done.stderr:
                raise BrokenPromiseError(f"full disk: {done.stderr.strip()[-300:]}")
            changed = [path for path, data in before.items() if not path.is_file() or path.read_bytes() != data]
        lines = [line for line in done.stderr.splitlines() if "cannot" in line or "full" in line or "No space" in line]
        told = lines[-1][-90:] if lines else f"exit {done.returncode}"
        return f"{told}{f'; {len(changed)} replaced whole' if changed else ''}"


def _fill(path: Path) -> None:
    """Leave no room on the disk of ``path``."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.tell() < 1 << 24:
            file.write(bytes(4096))


def _read(path: Path) -> None:
    """Raise unless the file at ``path`` is whole."""
    try:
        if path.suffix == ".safetensors":
            read_tensors(path)
        elif path.suffix == ".json":
            json.loads(path.read_bytes())
        elif path.suffix == ".onnx":
            import onnx

            onnx.checker.check_model(onnx.load(path))
        elif path.suffix == ".html" and not path.read_text().rstrip().endswith("</html>"):
            raise ValueError("no end")
        elif path.suffix == ".xml":
            from fbnetv3_zoo.classify import Classifier

            Classifier.open(path)
            settled(path)
        elif path.suffix == ".png":
            from PIL import Image

            Image.open(path).verify()
    except Exception as error:
        raise BrokenPromiseError(f"{path.name} is damaged ({error})") from None


def _made(folder: Path) -> None:
    """The files that commands begin with."""
    import torch

    from fbnetv3_zoo.export import export_onnx

    arch = replace(ARCHS["fbnetv3_a"].for_small_images().scaled(width=0.25, depth=0.25), num_classes=10, in_channels=1)
    (folder / "arch.json").write_text(arch.to_json())
    model = FBNet(arch, generator=torch.Generator().manual_seed(0)).eval()
    save(model, folder / "m.safetensors")
    torch.save(model.state_dict(), folder / "state.pth")
    export_onnx(model, folder / "m.onnx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--runtime", type=Path, help="an unpacked onnxruntime-web; without it no page is written")
    options = parser.parse_args()
    print("| command | changes | kills | leftovers seen | promises kept | full disk |\n|---|---|---|---|---|---|")
    with TemporaryDirectory() as name:
        made = Path(name, "made")
        made.mkdir()
        _made(made)
        for command in COMMANDS:
            if (options.only and command.name not in options.only) or (
                "RUNTIME" in command.arguments and not options.runtime
            ):
                continue
            one = Try(command, Path(name, "try"), made, options.runtime)
            kept, full = "yes", ""
            try:
                one.all_kills(options.kills)
                full = one.full_disk()
            except BrokenPromiseError as broken:
                kept = f"NO: {broken}"
            found = one.found
            print(f"| {command.name} | {found.changes} | {found.kills} | {found.left} | {kept} | {full} |", flush=True)


if __name__ == "__main__":
    main()

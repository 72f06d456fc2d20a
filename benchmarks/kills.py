"""Kill every writing command before chosen changes of its to the disk, and let the disk be full.

Every command runs once to its end; what it left are the old results. Then it is run over them again and again, each
time killed (SIGKILL) before another one of its changes to the file system (files opened for writing, moved, linked,
removed; folders made and removed), chosen evenly over all of them. In every folder lie files that look like temporary
ones and are not. After every kill: no such file is touched, and every file of the results is whole (it is read). After
the next run: nothing of the killed one is left, beside the results or in TMPDIR. Last, the command runs over its
results on a disk without room: it says so in one line, and the results are the old ones.

    python benchmarks/kills.py
    python benchmarks/kills.py --kills 20 --only train "export openvino"
    python benchmarks/kills.py --kills 4 --in-a-row
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
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from disks import small_disk
from kill_commands import COMMANDS, Command, uncovered
from kill_files import NAMES, Files

from fbnetv3_zoo.export.web.folder import CARD
from fbnetv3_zoo.utils.atomic_write import settled
from fbnetv3_zoo.weights.serialization import read_tensors

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

    def __init__(self, command: Command, home: Path, files: Files) -> None:
        self.command, self.home, self.out, self.temporary = command, home, home / "out", home / "tmp"
        self.files, self.found = files, Found()

    def begin(self) -> None:
        """Empty folders with decoys."""
        shutil.rmtree(self.home, ignore_errors=True)
        if self.command.begins_with:
            shutil.copytree(self.files.path(self.command.begins_with), self.out)
        for folder in (self.out, self.temporary):
            folder.mkdir(parents=True, exist_ok=True)
            for name in DECOYS:
                (folder / name).write_text(f"mine: {name}")

    def run(self, number: int, *, again: bool = False) -> subprocess.CompletedProcess[str]:
        """Run the command, killed before its change ``number`` (0: never)."""
        text = self.command.arguments
        if again:
            text = f"{text} {self.command.resumed}" if self.command.resumed.startswith("-") else self.command.resumed
        words = [self._meant(word) for word in text.split()]
        environment = {**os.environ, "TMPDIR": str(self.temporary), "FBNETV3_ZOO_CACHE": str(self.home / "cache"),
                       "OMP_NUM_THREADS": "1", "FBNETV3_ZOO_OFFLINE": "1"}  # fmt: skip
        command = [sys.executable, "-c", RUN, str(ROOT / "tests" / "helpers"), str(ROOT), str(number), *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def _meant(self, word: str) -> str:
        """A word of a command with the path for the name that it, or its value (``key=NAME``), begins with."""
        key, equals, value = word.rpartition("=")
        name, slash, rest = value.partition("/")
        if name == "OUT":
            return f"{key}{equals}{self.out}{slash}{rest}"
        return f"{key}{equals}{self.files.path(name)}{slash}{rest}" if name in NAMES else word

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

    def all_kills(self, kills: int, *, in_a_row: bool) -> Found:
        """Kill it so often, let it end after each; ``in_a_row``: after the last, where it can run over its results."""
        self.begin()
        first = self.run(0)
        if first.returncode:
            raise BrokenPromiseError(f"cannot run: {first.stderr.strip()[-300:]}")
        self.check(cleared=True)
        self.found.changes = changes = int(re.findall(r"changes: (\d+)", first.stderr)[-1])
        numbers = sorted({1 + round(n * (changes - 1) / max(1, kills - 1)) for n in range(kills)})
        for number in numbers:
            if self.command.fresh:
                self.begin()
            done = self.run(number)
            if not done.returncode:  # over results, and with what the cache remembers, it makes fewer changes
                done = self.run(number - number // 4)
            self.found.kills += done.returncode < 0
            self.check(cleared=False)
            if in_a_row and not self.command.fresh and number != numbers[-1]:
                continue
            done = self.run(0, again=bool(self.command.resumed) and self._has_begun())
            if done.returncode:
                raise BrokenPromiseError(f"after the kill before change {number}: {done.stderr.strip()[-300:]}")
            self.check(cleared=True)
        return self.found

    def _has_begun(self) -> bool:
        return any(path.parent.name == "checkpoints" or path.name == "journal.sqlite" for path in self.results())

    def full_disk(self) -> str:
        """Run it once more on a disk that is as good as full; the line that it says."""
        kept = self.home / "kept"
        if self.command.fresh:
            self.begin()
        self.out.rename(kept)
        size = sum(-(-path.stat().st_size // 4096) * 4096 for path in kept.rglob("*"))  # whole pages, as a disk has
        with small_disk(self.out, size + (1 << 20)):
            shutil.copytree(kept, self.out, dirs_exist_ok=True)
            _fill(self.out / "mine.bin")
            before = {path: path.read_bytes() for path in self.results()}
            done = self.run(0)
            self.check(cleared=True)
            last = [line for line in ("", *done.stderr.splitlines()) if not line.startswith("changes: ")][-1]
            if done.returncode and ("Traceback" in done.stderr or not last.startswith("error: ")):
                raise BrokenPromiseError(f"full disk: {done.stderr.strip()[-300:]}")
            changed = [path for path, data in before.items() if not path.is_file() or path.read_bytes() != data]
        told = last.replace(f"{self.home}/", "")[-100:] if done.returncode else "exit 0"
        return f"{told}{f'; {len(changed)} changed, whole' if changed else ''}"


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
            _read_json(path)
        elif path.suffix == ".jsonl":
            [json.loads(line) for line in path.read_text().splitlines()]
        elif path.suffix == ".onnx":
            import onnx

            onnx.checker.check_model(onnx.load(path))
        elif path.suffix == ".html" and not path.read_text().rstrip().endswith("</html>"):
            raise ValueError("no end")
        elif path.suffix in (".xml", ".ort", ".pte", ".param", ".tflite") or path.parent.suffix == ".mlpackage":
            from fbnetv3_zoo.classify import Classifier

            Classifier.open(path.parent if path.parent.suffix == ".mlpackage" else path)
            settled(path)
        elif path.suffix == ".png":
            from PIL import Image

            Image.open(path).verify()
    except Exception as error:
        raise BrokenPromiseError(f"{path.name} is damaged ({error})") from None


def _read_json(path: Path) -> None:
    found = json.loads(path.read_bytes())
    if path.name == CARD and not all((path.parent / name).is_file() for name in found["files"]):
        raise ValueError("a file of the page is missing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--in-a-row", action="store_true", help="let a run end after the last kill alone: quicker")
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--runtime", type=Path, help="an unpacked onnxruntime-web (default: fetched)")
    options = parser.parse_args()
    if wrong := uncovered():
        sys.exit("\n".join(wrong))
    print("| command | changes | kills | leftovers seen | promises kept | full disk |\n|---|---|---|---|---|---|")
    with TemporaryDirectory() as name:
        made = Path(name, "made")
        made.mkdir()
        for command in COMMANDS:
            if options.only and command.name not in options.only:
                continue
            one = Try(command, Path(name, "try"), Files(made, options.runtime))
            kept, full = "yes", ""
            try:
                one.all_kills(options.kills, in_a_row=options.in_a_row)
                full = one.full_disk()
            except (BrokenPromiseError, OSError, subprocess.SubprocessError) as broken:
                kept = f"NO: {broken}"
            found = one.found
            print(f"| {command.name} | {found.changes} | {found.kills} | {found.left} | {kept} | {full} |", flush=True)


if __name__ == "__main__":
    main()

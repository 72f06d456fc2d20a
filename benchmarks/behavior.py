"""What the commands give for fixed seeds, before and after a change: ``python benchmarks/behavior.py record A.json``.

``record`` trains (a classifier, a distilled and a quantization-aware one, detectors, both supernets, a joint search),
exports (ONNX, int8, web), classifies and describes, all through the command line, and writes digests of weights,
metrics, journals and graphs. ``compare A.json B.json`` lists every value that differs. The same machine and one thread
are needed: other processors round otherwise. ``--package`` is the checkout to run, this one by default.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[1]
TIMES = {
    "seconds",
    "images_per_second",
    "megabytes",
    "memory_mb",
    "time",
    "started",
    "begun",
    "ended",
    "created",
    "at",
    "digest",
}
TINY = ("--model", "fbnetv3_a", "--small-images", "--width", "0.25", "--depth", "0.34")
Command = Callable[..., str]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def tensors(path: Path) -> dict[str, str]:
    """A digest of each tensor of a safetensors file, and its metadata."""
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        found = {name: digest(file.get_tensor(name).tobytes()) for name in file.keys()}  # noqa: SIM118 - no mapping
        return found | {f"metadata {key}": value for key, value in (file.metadata() or {}).items()}


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def metrics(folder: Path) -> list[Any]:
    return [without_times(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def journal(path: Path) -> dict[str, str]:
    """A digest of every table, without the columns of times and the digests over them."""
    with sqlite3.connect(path) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: digest(_rows(database, name).encode()) for name in sorted(names)}


def _rows(database: sqlite3.Connection, table: str) -> str:
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    kept = [column for column in columns if column not in TIMES]
    rows = database.execute(f"SELECT {', '.join(kept)} FROM {table} ORDER BY 1, 2").fetchall()
    return json.dumps([kept, rows], default=str)


def graph(path: Path) -> dict[str, Any]:
    """Operators, constants and answers of an ONNX file."""
    import onnx
    import onnxruntime

    model = onnx.load(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    shape = [side if isinstance(side, int) else 2 for side in session.get_inputs()[0].shape]
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    answers = session.run(None, {session.get_inputs()[0].name: images})
    return {
        "operators": " ".join(node.op_type for node in model.graph.node),
        "constants": digest(b"".join(sorted(tensor.SerializeToString() for tensor in model.graph.initializer))),
        "metadata": {entry.key: entry.value for entry in model.metadata_props},
        "answers": [digest(np.ascontiguousarray(answer).tobytes()) for answer in answers],
    }


def boxes(folder: Path, number: int, seed: int) -> Path:
    """Colored discs and squares on gray, with their boxes in COCO's format."""
    folder.mkdir()
    rng, images, annotations = np.random.default_rng(seed), [], []
    for index in range(number):
        image = Image.fromarray(rng.integers(90, 166, (96, 96, 3), dtype=np.uint8))
        for _ in range(rng.integers(1, 4)):
            kind, size = int(rng.integers(2)), int(rng.integers(16, 40))
            x, y = (int(value) for value in rng.integers(0, 96 - size, 2))
            color = tuple(int(value) for value in rng.integers(0, 256, 3))
            draw = ImageDraw.Draw(image)
            (draw.ellipse if kind else draw.rectangle)((x, y, x + size - 1, y + size - 1), fill=color)
            annotations.append({
                "id": len(annotations) + 1, "image_id": index, "category_id": kind + 1,
                "bbox": [x, y, size, size], "area": size * size, "iscrowd": 0,
            })  # fmt: skip
        image.save(folder / f"{index}.png")
        images.append({"id": index, "file_name": f"{index}.png", "width": 96, "height": 96})
    names = [{"id": 1, "name": "square"}, {"id": 2, "name": "disc"}]
    path = folder / "boxes.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": names}))
    return path


def classifiers(run: Command, folder: Path) -> Iterator[tuple[str, Any]]:
    plain = folder / "plain"
    run("train", *TINY, "--data", "digits", "--epochs", "2", "--output", plain)
    yield "train", [tensors(plain / "model.safetensors"), tensors(plain / "best.safetensors"), metrics(plain)]
    teacher, model = ("--teacher", plain / "model.safetensors"), plain / "model.safetensors"
    run(
        "train",
        *TINY,
        "--data",
        "digits",
        "--epochs",
        "1",
        "--batch-size",
        "64",
        *teacher,
        "--output",
        folder / "taught",
    )
    yield "train, distilled", [tensors(folder / "taught" / "model.safetensors"), metrics(folder / "taught")]
    more = ("--weight-levels", "127", "--accumulation", "2")
    run("train", *TINY, "--data", "digits", "--epochs", "1", *more, "--output", folder / "levels")
    yield (
        "train, for int8, in two parts",
        [tensors(folder / "levels" / "model.safetensors"), metrics(folder / "levels")],
    )
    run("train", "--model", model, "--data", "digits", "--epochs", "1", "--output", folder / "tuned")
    yield "train, fine-tuned", [tensors(folder / "tuned" / "model.safetensors"), metrics(folder / "tuned")]
    yield "validate", without_times(json.loads(run("validate", model, "--data", "digits", "--json")))
    image = folder / "eight.png"
    Image.fromarray(np.random.default_rng(8).integers(0, 256, (8, 8), dtype=np.uint8)).save(image)
    yield "classify", json.loads(run("classify", "--model", model, image, "--json"))


def exports(run: Command, folder: Path) -> Iterator[tuple[str, Any]]:
    model = folder / "plain" / "model.safetensors"
    run("export", "onnx", model, "--output", folder / "float.onnx")
    yield "export onnx", graph(folder / "float.onnx")
    run("export", "int8", folder / "float.onnx", "--data", "digits", "--output", folder / "int8.onnx")
    yield "export int8", graph(folder / "int8.onnx")
    run("export", "web", folder / "float.onnx", "--output", folder / "web")
    yield "export web", {path.name: digest(path.read_bytes()) for path in sorted((folder / "web").rglob("*.onnx"))}


def detectors(run: Command, folder: Path) -> Iterator[tuple[str, Any]]:
    train, validation = boxes(folder / "train", 12, 1), boxes(folder / "validation", 6, 2)
    (folder / "settings.json").write_text(
        json.dumps({"format": "fbnetv3_zoo.settings", "version": 1, "min_size": 96, "max_size": 96})
    )
    for kind in ("c4", "fpn"):
        place = folder / kind
        run(
            "detect", "train", "--annotations", train, "--validation", validation, "--output", place, "--kind", kind,
            "--settings", folder / "settings.json", "--epochs", "2", "--batch-size", "4",
        )  # fmt: skip
        yield f"detect train, {kind}", [tensors(place / "model.safetensors"), metrics(place)]


def searches(run: Command, folder: Path) -> Iterator[tuple[str, Any]]:
    for kind in ("dnas", "dmasking"):
        place = folder / kind
        run("search", kind, "--data", "digits", "--epochs", "3", "--draws", "2", "--output", place)
        yield f"search {kind}", [metrics(place), json.loads((place / "found.json").read_text())]
    place = folder / "joint"
    size = ("--pool", "60", "--rounds", "2", "--batch", "3", "--epochs", "2", "--finalists", "1")
    run("search", "run", "--plan", "tiny", "--data", "digits", "--executor", "in-process", *size, "--output", place)
    results = {path.name: path.read_text() for path in sorted(place.glob("*.json"))}
    yield "search run", [journal(next(place.glob("journal*"))), results]


def record(package: Path, target: Path, only: str) -> None:
    results: dict[str, Any] = json.loads(target.read_text()) if target.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ours = {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1", "FBNETV3_ZOO_CACHE": str(folder / "cache")}
        environment = {**os.environ, **ours}

        def run(*words: object) -> str:
            command = [sys.executable, "-m", "fbnetv3_zoo", *map(str, words)]
            done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{' '.join(map(str, words))}: {done.stderr[-2000:]}")
            return done.stdout

        for part in (classifiers, exports, detectors, searches):
            if only in part.__name__ or (part is classifiers and only == "exports"):
                for name, value in part(run, folder):
                    results[name] = json.loads(json.dumps(value).replace(str(folder), ""))
                    target.write_text(json.dumps(results, indent=1, sort_keys=True))
                    print(name, flush=True)


def differences(before: Any, after: Any, at: str = "") -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            yield from differences(before.get(key), after.get(key), f"{at} / {key}" if at else key)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differences(one, other, f"{at} [{number}]")
    elif before != after:
        yield f"{at}: {str(before)[:200]} -> {str(after)[:200]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    recording = commands.add_parser("record")
    recording.add_argument("target", type=Path)
    recording.add_argument("--package", type=Path, default=ROOT, help="checkout to run")
    recording.add_argument("--only", default="", help="classifiers, exports, detectors or searches")
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "record":
        record(arguments.package.resolve(), arguments.target, arguments.only)
        return
    lines = list(differences(*(json.loads(path.read_text()) for path in (arguments.before, arguments.after))))
    print("\n".join(lines) or "identical")
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()

"""Files of data, searches, benchmarks and pages for :mod:`fuzz`."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sqlite3
import sys
import tarfile
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fuzz_formats import Form, Kind, form

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))


@form("subset")
def subset(folder: Path) -> Form:
    from fbnetv3_zoo.training.data.find import find_dataset
    from fbnetv3_zoo.training.data.subset import choose_subset, load_subset

    digits = find_dataset("digits")

    def read(path: Path) -> None:
        load_subset(path).apply(digits)

    return Form(choose_subset(digits, classes=3, held_out=6).to_json().encode(), read)


@form("benchmark")
def benchmark(folder: Path) -> Form:
    from fbnetv3_zoo.export.bench import results
    from fbnetv3_zoo.export.bench.routes import Route
    from fbnetv3_zoo.utils.serialization import to_json

    times = (2.0, 3.0, 2.5)
    row = results.Row("a", Route.ONNXRUNTIME, 1, 1, times, results.figures_of(times, batch=1), 3.0, 10**8)
    found = results.Benchmark(
        results.Machine("cpu", ("AVX2",), 2, 10**9, "linux", {"torch": "2"}), Route.ONNXRUNTIME, 3,
        (results.Subject("a", 224, 10**8, 75.0),), (row,), (results.Peak(1, 100.5),),
        (results.LoadCost("a", Route.EAGER, 1, 0.5, 10**7),),
        (results.UnavailableRoute("a", Route.EXECUTORCH, "none"),),
        (results.Operators("a", Route.ONNXRUNTIME, 1, 1, (results.OperatorKind("Conv", "float", 20.0, 1.5),)),),
        ("noise",),
    )  # fmt: skip

    def read(path: Path) -> None:
        told = results.Benchmark.read(path)
        results.check_measured(told)
        results.noise(told.rows, told.baseline)
        for subject in told.subjects:
            str((subject.published, told.best(subject.name, told.baseline)))

    return Form(to_json(found).encode(), read)


def _supernet(folder: Path) -> Path:
    """The files of a differentiable search that has ended."""
    from supernet_records import BLOCK_PLAN, record_of

    from fbnetv3_zoo.search.supernet.result import EPOCHS

    found = replace(record_of(BLOCK_PLAN), folder=folder)
    found.write()
    (folder / EPOCHS).write_text("".join(json.dumps(asdict(epoch)) + "\n" for epoch in found.epochs))
    return folder


def _of_supernet(name: str, kind: Kind) -> Callable[[Path], Form]:
    def made(folder: Path) -> Form:
        from fbnetv3_zoo.search.supernet import SupernetResult

        place = folder / "search"
        place.mkdir()
        _supernet(place)

        def read(path: Path) -> None:
            shutil.copyfile(path, place / name)
            str(SupernetResult.read(place).arch)

        return Form((place / name).read_bytes(), read, kind=kind)

    return made


form("supernet result")(_of_supernet("found.json", Kind.JSON))
form("supernet epochs")(_of_supernet("metrics.jsonl", Kind.LINES))


def _search(folder: Path) -> Path:
    """The journal of a small search that has ended, in a table."""
    import numpy as np

    from fbnetv3_zoo.search import PLANS, SPACES, Recording, parse_constraint
    from fbnetv3_zoo.search.evaluation import RecordedCosts, RecordedCurves
    from fbnetv3_zoo.search.run import run_search
    from fbnetv3_zoo.search.space import NetworkCosts, draw_pool

    space, plan = SPACES["tiny"], PLANS["tiny"]
    pool = draw_pool(space, NetworkCosts(space), parse_constraint("macs<=1M"), 40, np.random.default_rng(0))
    curves = (0.5 + 0.4 * pool.costs["macs"] / 1e6)[:, None, None] * np.linspace(0.9, 1, 6)
    table = Recording(space, pool.codes, curves, pool.costs)
    run_search(
        replace(plan, rounds=replace(plan.rounds, rounds=2, batch=4)), RecordedCurves(table), folder,
        costs=RecordedCosts(table), points=table.codes, report=False,
    )  # fmt: skip
    return folder / "journal.sqlite"


@form("journal")
def journal(folder: Path) -> Form:
    """The file itself, as SQLite wrote it."""
    from fbnetv3_zoo.search.result import SearchResult

    place = folder / "search"
    place.mkdir()
    data = _search(folder / "sound").read_bytes()

    def read(path: Path) -> None:
        shutil.copyfile(path, place / "journal.sqlite")
        for name in ("journal.sqlite-wal", "journal.sqlite-shm"):
            (place / name).unlink(missing_ok=True)
        _look_at(SearchResult.read(place))

    return Form(data, read, ".sqlite", Kind.BINARY)


def _look_at(record: Any) -> None:
    record.scored()
    str([record.candidate(winner) for winner in record.winners])


def _show(record: Any) -> None:
    from fbnetv3_zoo.search.report import write_report

    if record.done:
        write_report(record, record.folder / "report.html")


def _unfolded(value: object) -> object:
    """What stands in a cell, parsed where it is JSON."""
    with suppress(ValueError):
        return json.loads(value) if isinstance(value, str) and value[:1] in "{[" else value
    return value


def _put(connection: sqlite3.Connection, table: str, row: list[Any]) -> None:
    """Insert what SQLite takes, with a digest that fits."""
    from fbnetv3_zoo.search.journal import _COLUMNS, _digest

    columns = _COLUMNS[table]
    cells = [json.dumps(cell) if isinstance(cell, list | dict | bool) else cell for cell in row]
    with suppress(sqlite3.Error, OverflowError, UnicodeEncodeError):
        insert = f"INSERT INTO {table} ({columns}, digest) VALUES ({'?, ' * len(cells)}'') RETURNING {columns}"
        kept = connection.execute(insert, cells).fetchone()
        update = f"UPDATE {table} SET digest = ? WHERE {columns.partition(',')[0]} = ?"
        connection.execute(update, (_digest(table, kept), kept[0]))


def _rows(look_at: Callable[[Any], object]) -> Callable[[Path], Form]:
    """What stands in the tables of a journal; ``look_at`` uses what was read."""

    def made(folder: Path) -> Form:
        from fbnetv3_zoo.search.journal import _COLUMNS
        from fbnetv3_zoo.search.result import SearchResult

        sound, place = _search(folder / "sound"), folder / "search"
        place.mkdir()
        with closing(sqlite3.connect(sound)) as connection:
            tables = {
                name: connection.execute(f"SELECT {told} FROM {name}").fetchall() for name, told in _COLUMNS.items()
            }

        def read(path: Path) -> None:
            try:
                told = json.loads(path.read_bytes())
            except (ValueError, RecursionError):
                return
            shutil.copyfile(sound, place / "journal.sqlite")
            with closing(sqlite3.connect(place / "journal.sqlite")) as connection, connection:
                for name in _COLUMNS:
                    connection.execute(f"DELETE FROM {name}")
                    rows = told.get(name) if isinstance(told, dict) else None
                    for row in rows if isinstance(rows, list) else ():
                        _put(connection, name, row if isinstance(row, list) else [row])
            look_at(SearchResult.read(place))

        seed = {name: [[_unfolded(value) for value in row] for row in rows] for name, rows in tables.items()}
        return Form(json.dumps(seed).encode(), read)

    return made


form("journal, rows")(_rows(_look_at))
form("report of a search")(_rows(_show))


def _sealed(data: bytes, load: Callable[[Path], object], folder: Path) -> Form:
    """A sealed file whose header is mutated as JSON, and sealed again."""
    from fuzz_weights import _by_header

    from fbnetv3_zoo.errors import ZooError
    from fbnetv3_zoo.utils import checksummed

    def read(content: bytes) -> None:
        path = folder / "tried.safetensors"
        path.write_bytes(content)
        try:
            arrays, metadata = checksummed.ChecksummedFormat("a file", "", "", "", {}, ()).parse(path)
            size = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + size])
            metadata.pop("sha256", None)
            header["__metadata__"]["sha256"] = checksummed.digest(arrays, metadata)
            text = json.dumps(header).encode()
            path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
        except (ZooError, ValueError, KeyError, TypeError):
            pass
        load(path)

    return _by_header(data, read)


@form("recording")
def recording(folder: Path) -> Form:
    import numpy as np

    from fbnetv3_zoo.search import SPACES, Recording

    space = SPACES["tiny"]
    codes = np.unique(space.sample(6, np.random.default_rng(0)), axis=0)
    made = Recording(
        space, codes, np.linspace(0, 1, 6 * len(codes)).reshape(len(codes), 2, 3), {"macs": codes[:, 0] + 1.0}
    )
    made.save(folder / "sound.safetensors")

    def load(path: Path) -> None:
        found = Recording.load(path)
        str((found.lengths, found.scores, found.mean, len(found)))

    return _sealed((folder / "sound.safetensors").read_bytes(), load, folder)


@form("encoder")
def encoder(folder: Path) -> Form:
    import numpy as np

    from fbnetv3_zoo.search import SPACES
    from fbnetv3_zoo.search.predictors.mlp import ENCODER, Encoder, fingerprint

    space = SPACES["tiny"]
    layers = {name: np.ones((2, 4, 3), np.float32) for name in ENCODER}
    Encoder(layers, space.name, fingerprint(space), ("macs",), (0.9,), (0.8,)).save(folder / "sound.safetensors")
    return _sealed((folder / "sound.safetensors").read_bytes(), Encoder.load, folder)


@form("page card")
def page_card(folder: Path) -> Form:
    from fbnetv3_zoo.export.web.folder import CARD, FORMAT, PAGE, VERSION

    place = folder / "page"
    place.mkdir()
    (place / "index.html").write_text("page")

    def read(path: Path) -> None:
        shutil.copyfile(path, place / CARD)
        PAGE.read(place)
        PAGE.check_free(place)

    card = {
        "format": FORMAT,
        "format_version": VERSION,
        "files": [CARD, "index.html"],
        "name": "a",
        "classes": ["b", "c"],
    }
    return Form(json.dumps(card).encode(), read)


def _package(content: Callable[[bytes], bytes]) -> Callable[[Path], Form]:
    def made(folder: Path) -> Form:
        from fbnetv3_zoo.export.web.ort_web import PinnedPackage, package_files

        page = b"export const answer = 42;\n" * 20
        package = PinnedPackage("tiny", "1.0.0", {"dist/a.mjs": hashlib.sha256(page).hexdigest()})
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name, part in (("package.json", b'{"name": "tiny", "version": "1.0.0"}'), ("dist/a.mjs", page)):
                entry = tarfile.TarInfo(f"package/{name}")
                entry.size = len(part)
                tar.addfile(entry, io.BytesIO(part))

        def read(path: Path) -> None:
            path.write_bytes(content(path.read_bytes()))
            package_files(package, given=path)

        return Form(packed.getvalue(), read, ".tgz", Kind.BINARY)

    return made


def _packed(data: bytes) -> bytes:
    import gzip

    return gzip.compress(data, 1, mtime=0)


form("web archive")(_package(_packed))


@form("image")
def image(folder: Path) -> Form:
    """Images of every kind in turn; how they are mutated is in tests/helpers/hostile_images.py."""
    from hostile_images import examine, mutations

    made = mutations(10**9)

    def read(path: Path) -> None:
        from fbnetv3_zoo.errors import ZooError

        _, data = next(made)
        path.write_bytes(data)
        told = examine(data)
        if len(told) > 6:
            raise ZooError(told)

    return Form(b"\0", read, ".img", Kind.BINARY)


@form("shard")
def shard(folder: Path) -> Form:
    from PIL import Image

    from fbnetv3_zoo.training.data.shards import shards

    place, picture = folder / "data" / "train", io.BytesIO()
    place.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(picture, "JPEG")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for n in range(6):
            for ending, part in (("jpg", picture.getvalue()), ("cls", str(n % 2).encode())):
                entry = tarfile.TarInfo(f"{'long' * 30 if n == 2 else 'image'}{n}.{ending}")
                entry.size, entry.pax_headers = len(part), {"comment": "é" * 4} if n == 3 else {}
                tar.addfile(entry, io.BytesIO(part))

    def read(path: Path) -> None:
        shutil.copyfile(path, place / "0.tar")
        data = shards(place.parent)
        str([examples[0] for examples in data.splits.values() if len(examples)])

    return Form(packed.getvalue(), read, ".tar", Kind.BINARY)


def _cifar(number: int) -> Callable[[Path], Form]:
    """A batch of CIFAR as :data:`LAYOUTS` has it, of two images, with the names of the classes where it is pickled."""

    def made(folder: Path) -> Form:
        import pickle

        import numpy as np

        from fbnetv3_zoo.training.data.cifar import LAYOUTS, _class_names, _read

        layout = LAYOUTS[number]
        pixels = np.arange(2 * 3072).astype(np.uint8).reshape(2, 3072)
        if layout.label_bytes:
            seed = b"".join(bytes(layout.label_bytes) + row.tobytes() for row in pixels)
        else:
            names = [f"class {n}" for n in range(layout.num_classes)]
            seed = pickle.dumps({"data": pixels, layout.labels: [0, 1], layout.names: names}, 2)

        def read(path: Path) -> None:
            _read(path, layout, 2)
            if not layout.label_bytes:
                _class_names(path, layout)

        return Form(seed, read, ".bin", Kind.BINARY)

    return made


form("CIFAR, binary")(_cifar(0))
form("CIFAR, pickled")(_cifar(1))

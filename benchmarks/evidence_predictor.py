"""What the table `nars-letters` says about predictors and learning curves: figures 4 and 5 of the paper, and transfer.

    python benchmarks/evidence_predictor.py figure-4      # error and rank correlation against the number of trainings
    python benchmarks/evidence_predictor.py figure-5      # what stopping early saves, and what it costs
    python benchmarks/evidence_predictor.py transfer      # do the ranks on letters hold on emoji?

Every number is a mean over 20 seeds with its 95 % interval. Pictures are written into docs/evidence.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from evidence_table import SEEDS, Doubles, band, encoder, markdown, mean_of, picture, table
from nars_letters import EPOCHS
from scipy.stats import kendalltau

from fbnetv3_zoo.report import charts
from fbnetv3_zoo.search import PLANS
from fbnetv3_zoo.search.evaluation import Recording
from fbnetv3_zoo.search.predictors import MLP, PredictorKind, Pretraining, Trees, features, fit
from fbnetv3_zoo.search.predictors.mlp import Encoder
from fbnetv3_zoo.search.space import LETTERS, Part
from fbnetv3_zoo.search.stages.iterative import rank_correlations

SAMPLES = (12, 24, 48, 96, 192, 384)
LITERAL = PLANS["paper-literal"].rounds.predictor
KINDS: Mapping[str, PredictorKind] = {
    "shipped, without pretraining": MLP(pretraining=Pretraining.NONE),
    "shipped": MLP(),
    "literal": LITERAL,
    "boosted trees": Trees(),
}
SCATTERED = 96
FIRST_ROUND = 48
REACHED = 0.92


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("figure-4", "figure-5", "transfer"))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    given = parser.parse_args()
    {"figure-4": figure_4, "figure-5": figure_5, "transfer": transfer}[given.what](given.seeds)


@cache
def stage_1(kind: MLP, seed: int) -> Encoder:
    """The encoder of ``kind``, made once for a seed."""
    return encoder(kind, seed)


def figure_4(seeds: int) -> None:
    """Predictors learn from one training of each point, and are asked for the mean test accuracy of the others."""
    known = table()
    told, true = known.scores[:, 0], known.test_mean
    samples = [n for n in SAMPLES if n <= len(known) * 2 // 3]
    errors, taus = ({name: np.zeros((seeds, len(samples))) for name in KINDS} for _ in range(2))
    for seed in range(seeds):
        order = np.random.default_rng([seed, 8]).permutation(len(known))
        for column, number in enumerate(samples):
            fitted, asked = order[:number], order[samples[-1] :]
            for name, kind in KINDS.items():
                pretrained = isinstance(kind, MLP) and kind.pretraining is not Pretraining.NONE
                before = stage_1(kind, seed) if pretrained else None  # type: ignore[arg-type]
                predictor = fit(kind, LETTERS, known.codes[fitted], told[fitted] / 100, encoder=before, seed=seed)
                found = 100 * predictor.predict(known.codes[asked]).mean
                errors[name][seed, column] = np.mean((found - true[asked]) ** 2) / true.var()
                taus[name][seed, column] = kendalltau(found, true[asked]).statistic
    for title, values in (("Mean squared error, in variances of the test accuracy", errors), ("Kendall's tau", taus)):
        print(f"\n{title}\n\n{markdown(['trainings', *samples], _cells(values))}")
    print(f"\nTrainings without pretraining that are as good as so many with it: {_saved(errors, samples, seeds)}")
    picture("figure-4", lambda axes: _draw(axes, samples, taus, "trainings", "Kendall's tau"))
    _statistics(seeds)
    _scatter(known, told, true)


def _statistics(seeds: int) -> None:
    """Figures 4 (a) and (b): how well stage 1 predicts what networks cost, on the fifth of its pool held out."""
    found = [stage_1(MLP(), seed) for seed in range(seeds)]
    rows = [
        [name, *(mean_of([getattr(one, figure)[n] for one in found]) for figure in ("r2", "kendall"))]
        for n, name in enumerate(found[0].statistics)
    ]
    print("\nStage 1, on networks held out\n\n" + markdown(["", "R2", "Kendall's tau"], rows))


def _scatter(known: Recording, told: Doubles, true: Doubles) -> None:
    """Figures 4 (c) and (d): predicted against true accuracies, after ``SCATTERED`` trainings."""
    order = np.random.default_rng([0, 8]).permutation(len(known))
    fitted, asked = order[:SCATTERED], order[SCATTERED:]

    def draw(name: str) -> Callable[[Any], None]:
        before = stage_1(MLP(), 0) if name == "shipped" else None
        predictor = fit(KINDS[name], LETTERS, known.codes[fitted], told[fitted] / 100, encoder=before)
        found = 100 * predictor.predict(known.codes[asked]).mean

        def on(axes: Any) -> None:
            axes.plot([0, 100], [0, 100], color=charts.FAINT, linewidth=0.8)
            axes.scatter(true[asked], found, s=6)
            ends = (min(true[asked].min(), found.min()) - 2, max(true[asked].max(), found.max()) + 2)
            axes.set(title=name, xlabel="test accuracy, %", ylabel="predicted, %", xlim=ends, ylim=ends)

        return on

    picture("figure-4-scatter", *map(draw, ("shipped, without pretraining", "shipped")), size=(6.4, 3.2))


def _cells(values: Mapping[str, Doubles]) -> list[list[str]]:
    return [[name, *(mean_of(column) for column in of.T)] for name, of in values.items()]


def _draw(axes: Any, x: list[int], values: Mapping[str, Doubles], xlabel: str, ylabel: str) -> None:
    for color, (name, of) in zip(charts.SERIES, values.items(), strict=False):
        band(axes, x, of, name, color)
    axes.set(xlabel=xlabel, ylabel=ylabel, xscale="log")
    axes.set_xticks(x, x)
    axes.minorticks_off()


def _saved(errors: Mapping[str, Doubles], samples: list[int], seeds: int) -> str:
    """The factor of trainings that pretraining saves, by interpolating each seed's error without it."""
    with_it, without = errors["shipped"], errors["shipped, without pretraining"]
    cells = []
    for column, number in enumerate(samples[:-1]):
        factors = []
        for seed in range(seeds):
            falling = np.minimum.accumulate(without[seed])[::-1]
            logs = np.interp(with_it[seed, column], falling, np.log(samples)[::-1])
            factors.append(float(np.exp(logs)) / number)
        cells.append(f"{number}: {mean_of(factors)} times")
    return "; ".join(cells)


def figure_5(seeds: int) -> None:
    """Rank correlation with the last epoch; the epoch that a first round of 48 chooses, and what that costs."""
    curves, true = table().curves[:, 0], table().test_mean
    whole = rank_correlations(curves)
    print(markdown(["epoch", *range(1, EPOCHS + 1)], [["all points", *(f"{value:.2f}" for value in whole)]]))
    chosen, taus = [], np.zeros((seeds, EPOCHS))
    for seed in range(seeds):
        order = np.random.default_rng([seed, 9]).permutation(len(curves))
        correlations = rank_correlations(curves[order[:FIRST_ROUND]])
        chosen.append(next((e for e, value in enumerate(correlations, 1) if value >= REACHED), EPOCHS))
        rest = order[FIRST_ROUND:]
        taus[seed] = [kendalltau(curves[rest, epoch], true[rest]).statistic for epoch in range(EPOCHS)]
    epochs = np.array(chosen)
    lost = [taus[seed, -1] - taus[seed, epoch - 1] for seed, epoch in enumerate(epochs)]
    print(
        f"\nThe first round of {FIRST_ROUND} chooses epoch {mean_of(epochs)}: {np.bincount(epochs)[1:].tolist()} times"
    )
    print(f"saved of a later training: {mean_of(100 * (1 - epochs / EPOCHS))} %")
    print(f"Kendall's tau with the test accuracy: {mean_of(taus[:, -1])} at the end, {mean_of(lost)} lost by stopping")

    def draw(axes: Any) -> None:
        x = [*range(1, EPOCHS + 1)]
        axes.plot(x, whole, marker="o", markersize=3, label="Spearman, with the last epoch")
        band(axes, x, taus, "Kendall, with the test accuracy", charts.SECOND)
        axes.axhline(REACHED, color=charts.FAINT, linestyle=":")
        axes.set(xlabel="epoch", ylabel="rank correlation", ylim=(0, 1))

    picture("figure-5", draw)


def transfer(seeds: int) -> None:
    """Ranks of the same points on both data sets, whole and by what networks and recipes contribute to them."""
    letters, emoji = table(), table(data="emoji")
    rows = letters.rows(emoji.codes)
    scores = letters.test_mean[rows], emoji.test_mean
    found = [("whole points", lambda one, _: one)]
    found += [("what networks add", _contribution("architecture", emoji))]
    found += [("what recipes add", _contribution("recipe", emoji))]
    cells = []
    for name, of in found:
        taus = []
        for seed in range(seeds):  # the points are drawn again, with repetition
            drawn = np.random.default_rng([seed, 10]).integers(len(rows), size=len(rows))
            one, other = (of(score, drawn) if name != "whole points" else score[drawn] for score in scores)
            taus.append(kendalltau(one, other).statistic)
        cells.append([name, mean_of_draws(taus)])
    print(f"{len(rows)} points\n\n{markdown(['', 'Kendall'], cells)}")

    def draw(axes: Any) -> None:
        axes.scatter(*scores, s=10)
        axes.set(xlabel="accuracy on letters, %", ylabel="accuracy on emoji, %")

    picture("transfer", draw, size=(4.4, 3.4))


def mean_of_draws(values: list[float]) -> str:
    """The mean of values from points drawn with repetition, and the range of the middle 95 % of them."""
    low, high = np.quantile(values, (0.025, 0.975))
    return f"{np.mean(values):.2f} ({low:.2f} to {high:.2f})"


def _contribution(part: Part, known: Recording) -> Callable[[Doubles, npt.NDArray[np.int64]], Doubles]:
    """What one part of a point adds to its score, by a ridge regression on the features of both parts."""
    parts: tuple[Part, ...] = ("architecture", "recipe")
    columns = [features(LETTERS, known.codes, part=one, thresholds=False) for one in parts]
    own = np.repeat([one == part for one in parts], [one.shape[1] for one in columns])
    all_columns = np.concatenate(columns, 1)

    def of(scores: Doubles, drawn: npt.NDArray[np.int64]) -> Doubles:
        x = all_columns[drawn].astype(np.float64)
        x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-9)
        y = scores[drawn] - scores[drawn].mean()
        weights = np.linalg.solve(x.T @ x + len(drawn) / 4 * np.eye(x.shape[1]), x.T @ y)
        added: Doubles = x[:, own] @ weights[own]
        return added

    return of


if __name__ == "__main__":
    main()

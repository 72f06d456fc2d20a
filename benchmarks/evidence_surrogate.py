"""A model of the table `nars-letters`, which answers for every point of the space.

    python benchmarks/evidence_surrogate.py       # how well it predicts points that it has not seen

Of the 800 points of the table, random search with 768 trainings has nearly all, and stage 3 finds points that are not
in it. Boosted trees that have learned from all recorded trainings answer for other points instead: two, one for the
validation accuracy, by which a method goes, and one for the test accuracy, by which it is judged. What a method is told
has the noise of a seed besides: the deviation of a repeated training from the mean of its point, drawn from those of
points of about the same accuracy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import nars_letters
import numpy as np
import numpy.typing as npt
from evidence_table import Doubles, everything, interval, markdown
from scipy.stats import kendalltau

from fbnetv3_zoo.search.evaluation import Recording
from fbnetv3_zoo.search.predictors import features
from fbnetv3_zoo.search.space import LETTERS, Codes, NetworkCosts, distinct, draw_pool

POINTS, NEAREST, FOLDS = 4000, 20, 10


@dataclass(frozen=True, eq=False)
class Surrogate:
    """``validation`` and ``test`` give accuracies in percent of codes (points, dimensions).

    ``deviations`` (repeats,) are those of repeated trainings from the mean of their points, ``means``.
    """

    validation: Callable[[Codes], Doubles]
    test: Callable[[Codes], Doubles]
    means: Doubles
    deviations: Doubles

    def told(self, codes: Codes, rng: np.random.Generator) -> Doubles:
        """The validation accuracies of one training of each point."""
        exact = self.validation(codes)
        order = np.argsort(self.means, kind="stable")
        at = np.searchsorted(self.means[order], exact) + rng.integers(-NEAREST, NEAREST, len(codes))
        noisy: Doubles = exact + self.deviations[order][np.clip(at, 0, len(order) - 1)]
        return noisy


@cache
def surrogate() -> Surrogate:
    """The model of all recorded points."""
    known = everything()
    return Surrogate(_fitted(known.codes, known.mean), _fitted(known.codes, known.test_mean), *_deviations(known))


@cache
def points(part: str = "pool") -> Codes:
    """As many points as the plan `letters` searches, of which none need be in the table; ``part``: as of the table."""
    costs, within = NetworkCosts(LETTERS), nars_letters.WITHIN
    codes: Codes = draw_pool(LETTERS, costs, within, POINTS, np.random.default_rng(99)).codes
    if part == "pool":
        return codes
    fixed, point = nars_letters.HELD[part]
    held = np.array([dimension.part == fixed for dimension in LETTERS.dimensions])
    return distinct(np.where(held, LETTERS.code(point), codes))


def _fitted(codes: Codes, scores: Doubles) -> Callable[[Codes], Doubles]:
    from sklearn.ensemble import HistGradientBoostingRegressor

    model: Any = HistGradientBoostingRegressor(max_iter=300, learning_rate=0.05, max_leaf_nodes=8, random_state=0)
    model.fit(features(LETTERS, codes, thresholds=False), scores)
    return lambda asked: np.asarray(model.predict(features(LETTERS, asked, thresholds=False)), np.float64)


def _deviations(known: Recording) -> tuple[Doubles, Doubles]:
    """Means of the points trained several times, and the deviations from them, as large as those from a true mean."""
    repeats = (known.lengths > 0).sum(1)
    means, deviations = [], []
    for scores, count in zip(known.scores[repeats > 2], repeats[repeats > 2], strict=True):
        own = scores[~np.isnan(scores)]
        means += [own.mean()] * count
        deviations += list((own - own.mean()) * (count / (count - 1)) ** 0.5)
    return np.array(means), np.array(deviations)


def _split(count: int) -> list[npt.NDArray[np.int64]]:
    return np.array_split(np.random.default_rng(0).permutation(count), FOLDS)


def main() -> None:
    """Errors on points left out, over ten parts."""
    known = everything()
    cells = []
    for name, scores in (("validation", known.mean), ("test", known.test_mean)):
        r2, taus, errors = [], [], []
        for asked in _split(len(known)):
            rest = np.setdiff1d(np.arange(len(known)), asked)
            found = _fitted(known.codes[rest], scores[rest])(known.codes[asked])
            r2.append(1 - np.mean((found - scores[asked]) ** 2) / scores.var())
            taus.append(float(kendalltau(found, scores[asked]).statistic))
            errors.append(float(np.mean(np.abs(found - scores[asked]))))
        cells.append([name, *(f"{mean:.2f} ± {half:.2f}" for mean, half in map(interval, (r2, taus, errors)))])
    print(markdown(["accuracy", "R2", "Kendall", "mean absolute error, points"], cells))
    deviations = surrogate().deviations
    print(f"\nnoise of a seed: standard deviation {deviations.std():.2f} points ({len(deviations)} trainings)")


if __name__ == "__main__":
    main()

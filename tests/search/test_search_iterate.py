"""Stage 2 as ask and tell: rounds, the epoch to stop at, failures, the order in which outcomes arrive."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refusal
from scipy.stats import spearmanr

from fbnetv3_zoo.search.evaluation import Failure, Outcome, Trial
from fbnetv3_zoo.search.predictors import MLP
from fbnetv3_zoo.search.space import Dimension, Range, Space, all_points
from fbnetv3_zoo.search.stages import IterativeConfig, IterativeSearch
from fbnetv3_zoo.search.stages.iterative import rank_correlations

SPACE = Space("grid", others=tuple(Dimension(name, Range(0, 4)) for name in "abc"))
POOL = all_points(SPACE)
QUICK = MLP(members=2, steps=10)


def begun(*, rounds: int = 3, batch: int = 6, epochs: int = 4, seed: int = 0, size: int = 125) -> IterativeSearch:
    return IterativeSearch(
        SPACE, POOL[:size], IterativeConfig(epochs, rounds=rounds, batch=batch, predictor=QUICK), seed=seed
    )


def outcome(trial: Trial, failure: Failure | None = None) -> Outcome:
    """Better every epoch; the order of the candidates settles after the second."""
    if failure:
        return Outcome(trial.number, (), failure, "as told")
    score = sum(trial.code) / 12
    early = [(7 * trial.number % 5) / 10, score / 2 + (trial.number % 2) / 50]
    return Outcome(trial.number, (*early, *(score - 0.5**epoch for epoch in range(3, 5)))[: trial.epochs])


def carried_out(stage: IterativeSearch, failures: dict[int, Failure], *, backwards: bool) -> list[Trial]:
    while trials := stage.ask():
        told = [outcome(trial, failures.get(trial.number)) for trial in trials]
        stage.tell(told[::-1] if backwards else told)
    return stage.trials


def test_the_order_of_outcomes_does_not_matter() -> None:
    failures = {1: Failure.NOT_FINITE, 3: Failure.TIMEOUT, 8: Failure.ERROR}
    one, other = begun(), begun()
    assert carried_out(one, failures, backwards=False) == carried_out(other, failures, backwards=True)
    assert (one.stop_epoch, one.correlations) == (other.stop_epoch, other.correlations)
    assert [t.number for t in one.trials] == list(range(18))
    assert [t.round for t in one.trials] == [1] * 6 + [2] * 6 + [3] * 6
    assert len({t.code for t in one.trials}) == 18
    assert carried_out(begun(seed=1), failures, backwards=False) != one.trials


def test_taking_up_rounds_of_a_journal_leads_on_to_the_same() -> None:
    whole = begun()
    carried_out(whole, {}, backwards=False)
    taken = begun()
    for round_ in (1, 2):
        trials = taken.take_up([trial for trial in whole.trials if trial.round == round_])
        taken.tell([outcome(trial) for trial in trials])
    assert carried_out(taken, {}, backwards=False) == whole.trials


def test_training_stops_at_the_first_epoch_that_ranks_like_the_last() -> None:
    stage = begun(batch=20)
    trials = stage.ask()
    assert {trial.epochs for trial in trials} == {4}
    stage.tell([outcome(trial) for trial in trials])
    curves = np.array([outcome(trial).curve for trial in trials])
    expected = [spearmanr(curves[:, epoch], curves[:, -1]).statistic for epoch in range(4)]
    assert stage.correlations == pytest.approx(expected)
    first = next(epoch for epoch, value in enumerate(expected, 1) if value >= 0.92)
    assert 1 < stage.stop_epoch == first < 4
    later = stage.ask()
    assert {trial.epochs for trial in later} == {first}
    stage.tell([outcome(trial) for trial in later])
    codes, scores = stage.state.scored()
    assert codes.tolist() == [list(trial.code) for trial in stage.trials]
    assert scores.tolist() == [outcome(trial).curve[first - 1] for trial in stage.trials]


@pytest.mark.parametrize("count", [3, 8, 24, 48])
def test_a_correlation_of_1_never_stops_early(count: int) -> None:
    """Not even where an earlier epoch ranks all like the last, for any rounding of the correlation."""
    search = IterativeSearch(SPACE, POOL[:100], IterativeConfig(3, batch=count, correlation=1))
    search.tell([Outcome(trial.number, (trial.number, trial.number, trial.number)) for trial in search.ask()])
    assert search.stop_epoch == 3


def test_ranks_that_cannot_be_compared_do_not_stop_early() -> None:
    assert rank_correlations(np.array([[1.0, 5.0], [1.0, 6.0], [1.0, 7.0]])) == (0.0, pytest.approx(1.0))
    assert rank_correlations(np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])) == (0.0, 0.0)
    assert rank_correlations(np.array([[3.0, 1.0], [2.0, 2.0], [1.0, 3.0]])) == pytest.approx((-1.0, 1.0))
    assert rank_correlations(np.array([[1.0, 1.0], [1.0, 1.0], [2.0, 3.0], [3.0, 2.0]]))[0] == pytest.approx(
        spearmanr([1, 1, 2, 3], [1, 1, 3, 2]).statistic
    )
    two = begun(batch=4)
    failed = {0: Failure.ERROR, 1: Failure.LOST}
    two.tell([outcome(trial, failed.get(trial.number)) for trial in two.ask()])
    assert (two.stop_epoch, two.correlations) == (4, ())  # two curves tell nothing


def test_what_failures_count_as() -> None:
    stage = begun(batch=8)
    trials = stage.ask()
    kinds = dict(enumerate(Failure, 2))
    stage.tell([outcome(trial, kinds.get(trial.number)) for trial in trials])
    codes, scores = stage.state.scored()
    kept = [n for n in range(8) if kinds.get(n) in (None, Failure.NOT_FINITE)]
    assert codes.tolist() == [list(trials[n].code) for n in kept]
    assert Failure.NOT_FINITE in kinds.values()
    worst = min(outcome(trials[n]).curve[stage.stop_epoch - 1] for n in kept if n not in kinds)
    assert [score for n, score in zip(kept, scores, strict=True) if n in kinds] == [worst]
    assert np.isfinite(scores).all()
    assert stage.state.best(1).tolist() == [codes[scores.argmax()].tolist()]


def test_nothing_but_failures_gives_no_predictor_and_random_rounds() -> None:
    stage = begun()
    asked = []
    while trials := stage.ask():
        asked += trials
        stage.tell([outcome(trial, Failure.NOT_FINITE) for trial in trials])
    assert stage.predictor() is None
    assert [len(part) for part in stage.state.scored()] == [0, 0]
    assert stage.state.best(3).shape == (0, 3)
    assert len({trial.code for trial in asked}) == 18


def test_a_pool_that_is_used_up_ends_the_stage() -> None:
    stage = begun(size=8)
    assert [trial.round for trial in carried_out(stage, {}, backwards=False)] == [1] * 6 + [2] * 2
    assert stage.ask() == []
    assert stage.round == 2


def test_wrong_calls() -> None:
    assert refusal(lambda: begun(size=1)) == "the pool has 1 points; stage 2 needs at least 2"
    stage = begun()
    trials = stage.ask()
    assert refusal(stage.ask) == "round 1: 6 outcomes are missing"
    assert refusal(lambda: stage.tell([outcome(trials[0])])) == "round 1: no outcome of trial 1"
    assert refusal(lambda: IterativeConfig(0)) == "IterativeConfig.epochs is 0; it must be a whole number of at least 1"
    assert (
        refusal(lambda: IterativeConfig(4, batch=1))
        == "IterativeConfig.batch is 1; it must be a whole number of at least 2"
    )
    assert (
        refusal(lambda: IterativeConfig(4, correlation=1.5))
        == "IterativeConfig.correlation is 1.5; it must be a number at least 0 and at most 1"
    )

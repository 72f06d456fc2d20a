"""A whole search: stages 1 to 3, training of the finalists, and the files that it writes."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fbnetv3_zoo.errors import ZooError, check_whole, shown
from fbnetv3_zoo.utils.temporary_folder import clear

from .evaluation.trial import Evaluator, Limits, Outcome, Task, Trial
from .executors import Executor, InProcess
from .journal import Journal
from .notes import Winner, check_rows
from .plan import SearchPlan
from .predictors import MLP, Predictor, Pretraining, pretrain_encoder
from .predictors.mlp import Encoder
from .report import write_report
from .result import ENCODER, REPORT, SearchResult, write_winners
from .space import (
    Codes,
    Constraint,
    CostModel,
    NetworkCosts,
    NoCosts,
    Pool,
    check_constraint,
    distinct,
    draw_pool,
    outside,
)
from .stages.evolution import Evolved, evolve
from .stages.iterative import IterativeSearch

LEAST_POOL = 10
"""With fewer points, stage 1 pretrains nothing."""


class SearchCallback:
    """Called on the events of a search; does nothing unless overridden."""

    def on_stage(self, line: str) -> None:
        """A stage or round begins; ``line`` describes it."""

    def on_outcome(self, trial: Trial, outcome: Outcome) -> None:
        """A trial has ended, and its outcome is in the journal."""


def run_search(
    plan: SearchPlan, evaluator: Evaluator, folder: str | Path, *, executor: Executor | None = None,
    limits: Limits = Limits(), costs: CostModel | None = None, points: Codes | None = None, resume: bool = False,
    stages: int = 3, origin: Mapping[str, Any] | None = None, callbacks: Sequence[SearchCallback] = (),
    report: bool = True, options: Mapping[str, Any] | None = None,
) -> SearchResult:  # fmt: skip
    """Carry out ``plan``, writing journal, results and report to ``folder``.

    Args:
        plan: the search.
        evaluator: scores candidates.
        folder: output folder; must not contain a search unless ``resume``.
        executor: evaluates candidates (default: in this process, one after the other).
        limits: time, memory and retries of a candidate.
        costs: the free statistics (default: those of the space's networks, if any).
        points: the points to search, such as those of a recording (default: the whole space).
        resume: continue the search in ``folder``; the result is that of an uninterrupted one.
        stages: stop after stage 1, 2 or 3, which includes training the finalists. A later call can continue.
        origin: plain data kept in the journal, of where evaluator and costs came from; must be the same on resuming,
            or have the same entry "identity".
        callbacks: called on every stage and outcome.
        report: write ``report.html`` when the search is done.
        options: plain data kept in the journal in place of what was kept before, for who resumes the search.

    Raises :class:`ZooError` for input that does not fit and an unreachable constraint, before there is a folder, and
    where fewer than two candidates could be scored. Whatever else ends it (a full disk, Ctrl-C, a lost machine), the
    folder can be resumed.
    """
    search, executor = Search(plan, costs=costs, points=points), executor or InProcess()
    source = json.loads(json.dumps(dict(origin or {})))
    check_whole("stages", stages, at_most=3)
    search.check_all()
    executor.run(evaluator, (), limits)  # refuses what it cannot run
    with Journal.write(folder) as journal:
        _begin(journal, plan, source, resume=resume)
        if options is not None:
            journal.note("options", dict(options))
        clear(journal.folder)
        run = _Run(search, journal, evaluator, executor, limits, callbacks)
        run.stage_1()
        if stages >= 2:
            run.stage_2()
        if stages >= 3:
            winners = run.finals(run.stage_3())
            write_winners(plan, winners, Path(folder))
            journal.note("winners", [winner.to_plain() for winner in winners])
    result = SearchResult.read(folder)
    if report and result.done:
        write_report(result, result.folder / REPORT, costs=costs)
    return result


class Search:
    """The parts of a search that need no evaluator, each usable on its own."""

    def __init__(self, plan: SearchPlan, *, costs: CostModel | None = None, points: Codes | None = None) -> None:
        self.plan, self.space, self.points = plan, plan.space, points
        self.costs: CostModel = costs or (NetworkCosts(plan.space) if _searches_networks(plan) else NoCosts())

    def check(self, constraint: Constraint, *, at_least: Literal[1, 2] = 1) -> None:
        """Raise if too few points of the space meet ``constraint``, naming the nearest reachable value."""
        if self.points is not None:
            points = len(self._given(constraint))
        else:
            points = len(draw_pool(self.space, self.costs, constraint, 2, self._random(0)).codes)
        if points < at_least:
            bounds = f" that meets {','.join(map(str, constraint))}" if constraint else ""
            raise ZooError(f"space {self.space.name} has one point{bounds}; there is nothing to search")

    def check_all(self) -> None:
        """Raise if a constraint of the plan cannot be met."""
        self.check(self.plan.within, at_least=2)
        for constraint in self.plan.constraints:
            self.check(constraint)

    def pool(self) -> Pool:
        """The points of stages 1 and 2."""
        if self.points is not None:
            codes = self._given(self.plan.within)
            return Pool(codes, self.costs(codes))
        return draw_pool(self.space, self.costs, self.plan.within, self.plan.pool, self._random(1))

    def encoder(self, pool: Pool) -> Encoder | None:
        """Stage 1: an encoder pretrained on the costs of ``pool``; None if it is not used or has nothing to learn."""
        kind = self.plan.rounds.predictor
        varied = {name: values for name, values in pool.costs.items() if np.ptp(values) > 0}
        pretrains = isinstance(kind, MLP) and kind.pretraining is not Pretraining.NONE and len(pool.codes) >= LEAST_POOL
        if not (pretrains and varied and self.space.width("architecture")) or not isinstance(kind, MLP):
            return None
        return pretrain_encoder(self.space, pool.codes, varied, kind=kind, seed=self.plan.seed)

    def iterations(self, pool: Pool, encoder: Encoder | None) -> IterativeSearch:
        """Stage 2, as ask and tell."""
        return IterativeSearch(self.space, pool.codes, self.plan.rounds, encoder=encoder, seed=self.plan.seed)

    def evolve(self, predictor: Predictor, constraints: Sequence[Constraint], seeds: Codes) -> list[Evolved]:
        """Stage 3: the best points under each of ``constraints`` by the mean of ``predictor``, starting from ``seeds``.

        If the points to search are given, they are ranked instead.
        """
        if self.points is not None:
            return [self._ranked(predictor, constraint) for constraint in constraints]
        return evolve(
            lambda codes: predictor.predict(codes).mean, self.space, self.costs, constraints, seeds=seeds,
            evolving=self.plan.evolving, seed=self.plan.seed,
        )  # fmt: skip

    def _given(self, constraint: Constraint) -> Codes:
        assert self.points is not None
        check_constraint(constraint, self.costs.names)
        codes: Codes = self.points[outside(self.costs, constraint, self.points) == 0]
        if not len(codes):
            raise ZooError(f"none of the {len(self.points)} given points meets {','.join(map(str, constraint))}")
        return codes

    def _ranked(self, predictor: Predictor, constraint: Constraint) -> Evolved:
        codes = self._given(constraint)
        scores = predictor.predict(codes).mean
        order = np.argsort(-scores, kind="stable")[: self.plan.evolving.population]
        return Evolved(constraint, codes[order], scores[order], ((len(codes), float(scores.max())),))

    def _random(self, stage: int) -> np.random.Generator:
        return np.random.default_rng([self.plan.seed, stage])


def _searches_networks(plan: SearchPlan) -> bool:
    return plan.space.networks is not None


def _begin(journal: Journal, plan: SearchPlan, origin: Mapping[str, Any], *, resume: bool) -> None:
    """Store plan and origin in a new journal, or check that they agree with those in it."""
    notes, folder = journal.notes(), journal.folder
    if "plan" not in notes:
        journal.note("origin", dict(origin))
        journal.note("plan", plan.to_json())
        return
    if not resume:
        raise ZooError(f"{folder}: holds a search; continue it with `fbnetv3 search resume`, or give another folder")
    if notes["plan"] != plan.to_json():
        raise ZooError(f"{folder}: holds a search with another plan; give the same one, or another folder")
    if (before := notes.get("origin")) != dict(origin):
        identity = before.get("identity") if isinstance(before, dict) else None
        if not identity or identity != origin.get("identity"):
            raise ZooError(f"{folder}: its candidates were scored otherwise ({shown(before)}); give another folder")
        journal.note("origin", dict(origin))  # the same data, elsewhere
    try:
        check_rows(plan, journal.trials(), journal.outcomes())
    except ZooError as error:
        raise ZooError(f"{folder}: its journal is damaged ({error}); give another folder") from None


class _Run:
    def __init__(
        self, search: Search, journal: Journal, evaluator: Evaluator, executor: Executor, limits: Limits,
        callbacks: Sequence[SearchCallback],
    ) -> None:  # fmt: skip
        self.search, self.plan, self.journal = search, search.plan, journal
        self.evaluator, self.executor, self.limits, self.callbacks = evaluator, executor, limits, callbacks

    def stage_1(self) -> None:
        """Draw the pool and pretrain the encoder."""
        self.pool = self.search.pool()
        self._say(f"stage 1: {len(self.pool.codes):,} points in the pool")
        encoder = self.search.encoder(self.pool)
        if encoder is not None:
            quality = dict(zip(encoder.statistics, zip(encoder.r2, encoder.kendall, strict=True), strict=True))
            self.journal.note("encoder", {name: {"r2": r2, "kendall": tau} for name, (r2, tau) in quality.items()})
            encoder.save(self.journal.folder / ENCODER)
        self.journal.note("pool", len(self.pool.codes))
        self.iterations = self.search.iterations(self.pool, encoder)

    def stage_2(self) -> None:
        """Rounds of trials; those in the journal are not evaluated again."""
        while trials := self._next_round():
            self.iterations.tell(self._outcomes(trials))
            if self.iterations.round == 1:
                stop = {"epoch": self.iterations.stop_epoch, "correlations": self.iterations.correlations}
                self.journal.note("stop", stop)
        if self.iterations.predictor() is None:
            number, outcomes = len(self.iterations.state.scored()[0]), self.journal.outcomes().values()
            reason = next(outcome.reason for outcome in outcomes if outcome.failure)
            raise ZooError(
                f"{self.journal.folder}: {number} of {len(outcomes)} candidates could be scored, and 2 are needed; "
                f"the first failure: {reason}"
            )

    def stage_3(self) -> list[Evolved]:
        """The best predicted points under every constraint."""
        self._say(f"stage 3: evolution under {len(self.plan.constraints)} constraints")
        predictor = self.iterations.predictor()
        assert predictor is not None
        evolved = self.search.evolve(
            predictor, self.plan.constraints, self.iterations.state.best(len(self.iterations.trials))
        )
        self.journal.note("evolved", [_evolved_to_plain(one) for one in evolved])
        return evolved

    def finals(self, evolved: Sequence[Evolved]) -> list[Winner]:
        """Train the finalists of every constraint in full; the best measured one wins, else the best predicted one."""
        full = self.plan.rounds.epochs
        finalists = distinct(np.concatenate([self._finalists(one) for one in evolved]))
        done = {trial.code for trial in self.iterations.trials if trial.epochs == full}
        last = self.plan.rounds.rounds + 1  # even if fewer rounds used up the pool
        missing = [code for code in map(tuple, finalists.tolist()) if code not in done]
        new = [Trial(number, last, code, full) for number, code in enumerate(missing, len(self.iterations.trials))]
        trials = self._asked_before(last) or new
        self._outcomes(trials)
        return [self._winner(one) for one in evolved]

    def _finalists(self, evolved: Evolved) -> Codes:
        """The best measured point that meets the constraint, then the best predicted points."""
        number = self.plan.finalists
        known = self.iterations.state.best(len(self.iterations.trials))
        fitting = known[outside(self.search.costs, evolved.constraint, known) == 0][: min(1, number - 1)]
        return distinct(np.concatenate([fitting, evolved.codes]))[:number]

    def _winner(self, evolved: Evolved) -> Winner:
        full, outcomes = self.plan.rounds.epochs, self.journal.outcomes()
        measured = {
            trial.code: outcomes[trial.number].curve[-1]
            for trial in self.journal.trials()
            if trial.epochs == full and trial.number in outcomes and outcomes[trial.number].failure is None
        }
        codes = np.array(list(measured), np.int64).reshape(-1, len(self.plan.space.dimensions))
        inside = outside(self.search.costs, evolved.constraint, codes) == 0
        fitting = {code: score for (code, score), good in zip(measured.items(), inside, strict=True) if good}
        code = evolved.codes[0]
        if fitting and self.plan.finalists:
            code = np.array(max(fitting, key=lambda one: fitting[one]), np.int64)
        predictor = self.iterations.predictor()
        assert predictor is not None
        return Winner(
            constraint=evolved.constraint,
            code=tuple(code.tolist()),
            predicted=float(predictor.predict(code[None]).mean[0]),
            measured=fitting.get(tuple(code.tolist())),
            costs={name: float(values[0]) for name, values in self.search.costs(code[None]).items()},
        )

    def _next_round(self) -> list[Trial]:
        done = self.iterations.round
        if done < self.plan.rounds.rounds and (before := self._asked_before(done + 1)):
            return self.iterations.take_up(before)
        return self.iterations.ask()

    def _asked_before(self, round_: int) -> list[Trial]:
        return [trial for trial in self.journal.trials() if trial.round == round_]

    def _outcomes(self, trials: Sequence[Trial]) -> list[Outcome]:
        """The outcomes of ``trials``, evaluating those that the journal lacks."""
        known = {trial.number for trial in self.journal.trials()}
        if new := [trial for trial in trials if trial.number not in known]:
            self.journal.ask(new)
        outcomes = self.journal.outcomes()
        left = [trial for trial in trials if trial.number not in outcomes]
        if left:
            self._say(f"round {left[0].round}: {len(left)} candidates, {left[0].epochs} epochs each")
        tasks = [Task(trial.number, self._candidate(trial), trial.epochs) for trial in left]
        by_number = {trial.number: trial for trial in left}
        with _ended(self.executor.run(self.evaluator, tasks, self.limits) if tasks else iter(())) as stream:
            for outcome in stream:
                self.journal.tell(outcome)
                for callback in self.callbacks:
                    callback.on_outcome(by_number[outcome.number], outcome)
        outcomes = self.journal.outcomes()
        return [outcomes[trial.number] for trial in trials]

    def _candidate(self, trial: Trial) -> Any:
        return self.plan.space.candidate(trial.code, f"{self.plan.name}-{trial.number:04d}")

    def _say(self, line: str) -> None:
        for callback in self.callbacks:
            callback.on_stage(line)


@contextmanager
def _ended(outcomes: Iterator[Outcome]) -> Iterator[Iterator[Outcome]]:
    """``outcomes``; tasks still running when the block is left are ended."""
    try:
        yield outcomes
    finally:
        if isinstance(outcomes, Generator):
            outcomes.close()


def _evolved_to_plain(evolved: Evolved) -> dict[str, Any]:
    return {
        "constraint": [asdict(bound) for bound in evolved.constraint],
        "codes": evolved.codes[:20].tolist(),
        "scores": evolved.scores[:20].tolist(),
        "progress": [list(point) for point in evolved.progress],
    }

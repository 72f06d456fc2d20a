"""A whole search: stages 1 to 3, training of the finalists, and the files that it writes."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fbnetv3_zoo.errors import ZooError, check_type, check_whole, shown
from fbnetv3_zoo.training.callbacks import check_callbacks
from fbnetv3_zoo.training.run_folder import check_foreign, check_no_run
from fbnetv3_zoo.utils.paths import JOURNAL, exists, to_path
from fbnetv3_zoo.utils.temporary_folder import clear

from .evaluation.running import RUNNING, Reporting, forget, running_folder
from .evaluation.trial import Evaluator, Limits, Outcome, Task, Trial, check_evaluator
from .executors import Executor, InProcess, find_executor
from .executors.scheduling import longest_first
from .journal import Journal
from .notes import Winner, check_rows
from .parts import Search
from .plan import SearchPlan
from .report import write_report
from .result import ENCODER, REPORT, SearchResult, winner_files, write_winners
from .space import Codes, CostModel, distinct, outside
from .stages.evolution import Evolved


class SearchCallback:
    """Called on the events of a search; does nothing unless overridden."""

    def on_stage(self, line: str) -> None:
        """A stage or round begins; ``line`` describes it."""

    def on_outcome(self, trial: Trial, outcome: Outcome) -> None:
        """A trial has ended, and its outcome is in the journal."""


def run_search(
    plan: SearchPlan | str | Path, evaluator: Evaluator, folder: str | Path, *, executor: Executor | str | None = None,
    limits: Limits = Limits(), costs: CostModel | None = None, points: Codes | None = None, resume: bool = False,
    stages: int = 3, origin: Mapping[str, Any] | None = None, callbacks: Sequence[SearchCallback] = (),
    report: bool = True, options: Mapping[str, Any] | None = None,
) -> SearchResult:  # fmt: skip
    """Carry out ``plan``, writing journal, results and report to ``folder``.

    Args:
        plan: the search, a :class:`SearchPlan`; or one's name or file, as for :func:`find_plan`.
        evaluator: scores candidates.
        folder: output folder; must not contain a search unless ``resume``.
        executor: evaluates candidates (default: in this process, one after the other); or its name, such as
            ``"pool:4"``, as for :func:`find_executor`.
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
    check_evaluator(evaluator)
    folder = to_path("folder", folder, "the path of a folder, such as 'runs/search'")
    check_type("limits", limits, Limits, "a Limits, such as Limits(seconds=60)")
    search, executor = Search(plan, costs=costs, points=points), _executor(executor)
    plan = search.plan
    source = json.loads(json.dumps(dict(origin or {})))
    check_whole("stages", stages, at_most=3)
    check_callbacks(callbacks, SearchCallback, "search")
    search.check_all()
    capacity = executor.look(evaluator, limits)
    running = folder / RUNNING
    if isinstance(evaluator, Reporting):
        evaluator = evaluator.reporting_to(running)
    if not exists(folder / JOURNAL):
        check_no_run(folder)
        check_foreign(folder, (REPORT, ENCODER, *winner_files(plan)))
    with Journal.write(folder) as journal:
        _begin(journal, plan, source, resume=resume)
        if options is not None:
            journal.note("options", dict(options))
        journal.note("capacity", asdict(capacity))
        clear(journal.folder)
        run = _Run(search, journal, evaluator, executor, limits, callbacks, capacity.at_once)
        forget(running, [plan.candidate_name(trial.number) for trial in journal.trials()])
        with running_folder(running) if isinstance(evaluator, Reporting) else nullcontext():
            _go(run, stages)
    result = SearchResult.read(folder)
    if report and result.done:
        write_report(result, result.folder / REPORT, costs=costs)
    return result


def _executor(given: Executor | str | None) -> Executor:
    """The executor that is given, or named."""
    if given is None:
        return InProcess()
    if callable(getattr(given, "look", None)) and callable(getattr(given, "run", None)):
        return given  # type: ignore[return-value]
    return find_executor(given)  # type: ignore[arg-type]


def _begin(journal: Journal, plan: SearchPlan, origin: Mapping[str, Any], *, resume: bool) -> None:
    """Store plan and origin in a new journal, or check that they agree with those in it."""
    notes, folder = journal.notes(), journal.folder
    if "plan" not in notes:
        journal.note("origin", dict(origin))
        journal.note("plan", plan.to_json())
        return
    if not resume:
        resume_it = "`fbnetv3 search resume` or run_search(resume=True)"
        raise ZooError(f"{folder}: holds a search; continue it with {resume_it}, or give another folder")
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


def _go(run: _Run, stages: int) -> None:
    """Run the first ``stages`` stages, and write what they found."""
    run.stage_1()
    if stages >= 2:
        run.stage_2()
    if stages >= 3:
        winners = run.finals(run.stage_3())
        write_winners(run.plan, winners, run.journal.folder)
        run.journal.note("winners", [winner.to_plain() for winner in winners])


class _Run:
    def __init__(
        self, search: Search, journal: Journal, evaluator: Evaluator, executor: Executor, limits: Limits,
        callbacks: Sequence[SearchCallback], at_once: int,
    ) -> None:  # fmt: skip
        self.search, self.plan, self.journal = search, search.plan, journal
        self.evaluator, self.executor, self.limits, self.callbacks = evaluator, executor, limits, callbacks
        self.at_once = at_once

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
                f"the first failure: {reason}; mend the cause, and give another folder"
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
        left = self._in_order([trial for trial in trials if trial.number not in outcomes])
        if left:
            self._say(f"round {left[0].round}: {len(left)} candidates, {left[0].epochs} epochs each")
        tasks = [Task(trial.number, self._candidate(trial), trial.epochs) for trial in left]
        by_number = {trial.number: trial for trial in left}
        with _ended(self.executor.run(self.evaluator, tasks, self.limits) if tasks else iter(())) as stream:
            for outcome in stream:
                self.journal.tell(outcome)
                forget(self.journal.folder / RUNNING, [self.plan.candidate_name(outcome.number)])
                for callback in self.callbacks:
                    callback.on_outcome(by_number[outcome.number], outcome)
        outcomes = self.journal.outcomes()
        return [outcomes[trial.number] for trial in trials]

    def _in_order(self, trials: list[Trial]) -> list[Trial]:
        """``trials`` as they are handed out: where several run at a time, those with the most MACs first."""
        if self.at_once == 1 or not trials or "macs" not in self.search.costs.names:
            return trials
        macs = self.search.costs(np.array([trial.code for trial in trials]))["macs"]
        return [trials[n] for n in longest_first(macs)]

    def _candidate(self, trial: Trial) -> Any:
        return self.plan.space.candidate(trial.code, self.plan.candidate_name(trial.number))

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

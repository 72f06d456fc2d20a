"""The whole search: interrupted anywhere it ends where it would have ended; what is refused, and what failures do."""

from __future__ import annotations

import math
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killed import leave_half_a_file
from refusals import refusal
from search_jobs import Account, Job, killed, result, session, started
from waiting import PATIENCE, until

from fbnetv3_zoo.recipes import ExponentialDecay, Recipe
from fbnetv3_zoo.search.evaluation import Evaluator, Failure, FunctionEvaluator, Limits, Outcome, Task, Trial
from fbnetv3_zoo.search.executors import Capacity, InProcess, LocalPool
from fbnetv3_zoo.search.journal import Journal
from fbnetv3_zoo.search.plan import PLANS, FinalTraining, SearchPlan, find_plan
from fbnetv3_zoo.search.predictors import MLP, Trees, fit
from fbnetv3_zoo.search.report.page import _Subject
from fbnetv3_zoo.search.result import SearchResult, Winner, write_winners
from fbnetv3_zoo.search.reuse import predictor_of
from fbnetv3_zoo.search.run import SearchCallback, run_search
from fbnetv3_zoo.search.space import (
    TINY,
    Bound,
    Candidate,
    Choice,
    Codes,
    Costs,
    Dimension,
    Range,
    Space,
    parse_constraint,
)
from fbnetv3_zoo.search.stages import EvolutionConfig, IterativeConfig
from fbnetv3_zoo.utils.paths import LOCK
from fbnetv3_zoo.utils.serialization import to_json

SPACE = Space("grid", others=tuple(Dimension(name, Range(0, 4)) for name in "abcd"))
QUICK = MLP(members=2, steps=10)


class Weight:
    """A cost: the sum of a point's numbers."""

    names = ("weight",)

    def __call__(self, codes: Codes) -> Costs:
        return {"weight": codes.sum(1).astype(np.float64)}


def plan(**changes: Any) -> SearchPlan:
    rounds = IterativeConfig(4, rounds=3, batch=6, predictor=QUICK)
    constraints = parse_constraint("weight<=9"), parse_constraint("weight<=5")
    made = SearchPlan(
        "small", SPACE, rounds, pool=100, constraints=constraints, finalists=2,
        evolving=EvolutionConfig(population=8, evaluations=60),
    )  # fmt: skip
    return replace(made, **changes)


@dataclass
class Curves:
    """Curves whose order settles early; ``fails`` says what candidates of a kind do. Counts its calls."""

    raises: int = -1
    diverges: int = -1
    short: int = -1
    calls: int = 0

    def __call__(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        self.calls += 1
        kind = int(candidate.values["a"])
        if kind == self.raises:
            raise ValueError("no such network")
        score = math.sin(sum(int(value) * (n + 2) for n, value in enumerate(candidate.values.values())))
        curve = [score * (1 - 0.5**epoch) for epoch in range(1, epochs + 1)]
        if kind == self.diverges:
            return [*curve[:-1], math.nan]
        return curve[1:] if kind == self.short else curve


def run(folder: Path, evaluator: Evaluator | None = None, given: SearchPlan | None = None, **rest: Any) -> SearchResult:
    return run_search(given or plan(), evaluator or Curves(), folder, costs=Weight(), **{"report": False, **rest})


def content(found: SearchResult) -> SearchResult:
    """All of a record but the folder, the times and what it was computed on."""
    outcomes = {number: replace(outcome, seconds=0.0) for number, outcome in found.outcomes.items()}
    return replace(found, folder=Path(), outcomes=outcomes, capacity=None)


class Halt(SearchCallback):
    """Ends the search, as Ctrl-C would, at the event ``at``; counts them."""

    def __init__(self, at: int = -1) -> None:
        self.at, self.events = at, 0

    def on_stage(self, line: str) -> None:
        self._event()

    def on_outcome(self, trial: Trial, outcome: Outcome) -> None:
        self._event()

    def _event(self) -> None:
        self.events += 1
        if self.events - 1 == self.at:
            raise KeyboardInterrupt


class Deaf(SearchCallback):
    def on_trial(self, trial: Trial) -> None:
        """Is never called."""


def test_plan_and_executor_by_name(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(plan().to_json())
    named = run_search(tmp_path / "mine.json", Curves(), tmp_path / "named", costs=Weight(), executor="in-process")
    assert content(named) == content(run(tmp_path / "given"))


def test_interrupted_at_any_event_it_ends_where_it_would_have_ended(tmp_path: Path) -> None:
    counted, short = Halt(), plan(rounds=IterativeConfig(4, rounds=2, batch=4, predictor=QUICK))
    expected = run(tmp_path / "whole", Curves(raises=2), short, callbacks=[counted])
    assert expected.done
    assert [trial.round for trial in expected.trials][:8] == [1] * 4 + [2] * 4
    assert {trial.round for trial in expected.trials[8:]} == {3}
    for at in range(counted.events):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / str(at), Curves(raises=2), short, callbacks=[Halt(at)])
        interrupted = SearchResult.read(tmp_path / str(at))
        assert not interrupted.done
        assert interrupted.outcomes.keys() <= {trial.number for trial in interrupted.trials}
        assert content(run(tmp_path / str(at), Curves(raises=2), short, resume=True)) == content(expected)


def test_a_finished_search_is_not_done_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    again, events = Curves(), Halt()
    assert run(tmp_path, again, resume=True, callbacks=[events]) == first
    assert again.calls == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == names == [".fbnetv3-zoo.lock", "journal.sqlite"]


def test_stage_by_stage_is_the_same_as_at_once(tmp_path: Path) -> None:
    expected = content(run(tmp_path / "once"))
    for stages, trials in ((1, 0), (2, 18)):
        found = run(tmp_path / "stages", stages=stages, resume=True)
        assert (len(found.trials), found.done, found.winners) == (trials, False, ())
    assert content(run(tmp_path / "stages", resume=True)) == expected
    for stages in (0, 4, 2.5):
        assert refusal(lambda s=stages: run(tmp_path / "none", stages=s)).startswith(
            f"stages is {stages}; it must be a"
        )
    assert not (tmp_path / "none").exists()


class Backwards:
    """Gives outcomes in the opposite order."""

    def look(self, evaluator: Evaluator, limits: Limits) -> Capacity:
        return InProcess().look(evaluator, limits)

    def run(self, evaluator: Evaluator, tasks: Sequence[Task], limits: Limits) -> Iterator[Outcome]:
        return iter(list(InProcess().run(evaluator, tasks, limits))[::-1])


def test_the_order_of_outcomes_does_not_matter(tmp_path: Path) -> None:
    one = run(tmp_path / "one", Curves(diverges=1))
    assert content(run(tmp_path / "other", Curves(diverges=1), executor=Backwards())) == content(one)


def test_a_pool_that_is_used_up_early_and_finals_that_are_interrupted(tmp_path: Path) -> None:
    """The finalists are never taken for a round of stage 2."""
    small = plan(pool=9, rounds=IterativeConfig(4, rounds=5, batch=6, predictor=QUICK), finalists=4)
    counted = Halt()
    expected = run(tmp_path / "whole", given=small, callbacks=[counted])
    assert [sum(trial.round == n for trial in expected.trials) for n in (1, 2, 3)] == [6, 3, 0]
    assert {trial.round for trial in expected.trials[9:]} == {6}
    assert len(expected.scored()[0]) == 9
    for at in range(counted.events - len(expected.trials[9:]), counted.events):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / str(at), given=small, callbacks=[Halt(at)])
        assert content(run(tmp_path / str(at), given=small, resume=True)) == content(expected)


@dataclass
class OneRoundFails:
    """Scores the first candidates and none of the later ones."""

    scored: int

    def __call__(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        if int(candidate.name.rpartition("-")[2]) >= self.scored:
            raise ValueError("out of order")
        return Curves()(candidate, epochs)


def test_a_round_of_failures_leaves_one_predictor_for_everything(tmp_path: Path) -> None:
    """Stage 3, a later evolution and the report fit the same one, seeded by the last round, which failed."""
    small = plan(rounds=IterativeConfig(4, rounds=2, batch=6, predictor=QUICK))
    record = run(tmp_path / "search", OneRoundFails(6), given=small)
    assert {trial.round for trial in record.trials if record.outcomes[trial.number].failure is None} == {1}
    assert record.state().round == 2
    codes, scores = record.scored()
    expected = fit(QUICK, SPACE, codes, scores, seed=small.seed + 2).predict(SPACE.check(codes))
    for predictor in (record.state().fit(None), predictor_of(record), _Subject(record, Weight()).predictor):
        assert predictor is not None
        np.testing.assert_array_equal(predictor.predict(codes).members, expected.members)
    for winner in record.winners:
        assert winner.predicted == predictor_of(record).predict(np.array([winner.code])).mean[0]


ODD_ROWS: dict[str, tuple[Callable[[Journal, int], object], str]] = {
    "no point": (lambda j, n: j.ask([Trial(n, 1, (0, 0, 0, 5), 4)]), "a trial has (0, 0, 0, 5), which is no point"),
    "too large": (lambda j, n: j.ask([Trial(n, 1, (0, 0, 0, 2**62), 4)]), "a trial has"),
    "too short": (lambda j, n: j.ask([Trial(n, 1, (0, 0, 0), 4)]), "a trial has (0, 0, 0), which is no point"),
    "a number left out": (lambda j, n: j.ask([Trial(n + 1, 1, (0, 0, 0, 0), 4)]), "trial {n1} is number {n}"),
    "too many epochs": (
        lambda j, n: j.ask([Trial(n, 1, (0, 0, 0, 0), 5)]),
        "trial {n} is number {n}, of round 1, 5 epo",
    ),
    "epoch of the stop": (lambda j, n: j.note("stop", {"epoch": 9, "correlations": []}), "notes.stop.epoch is 9"),
    "correlations": (lambda j, n: j.note("stop", {"epoch": 2, "correlations": [1.0]}), "notes.stop.correlations"),
    "fronts": (lambda j, n: j.note("evolved", []), "notes.evolved has 0 entries for 2 constraints"),
    "encoder": (lambda j, n: j.note("encoder", {"macs": {"r2": "high", "kendall": 1}}), "notes.encoder.macs.r2"),
}


@pytest.mark.parametrize("kind", ODD_ROWS)
def test_a_journal_that_is_sound_but_odd_is_refused(kind: str, tmp_path: Path) -> None:
    """Every digest fits: what is written is not what a search of this plan writes."""
    change, told = ODD_ROWS[kind]
    number = len(run(tmp_path).trials)
    with Journal.write(tmp_path) as journal:
        change(journal, number)
    expected = f"{tmp_path}: its journal is damaged ({told.format(n=number, n1=number + 1)}"
    assert refusal(lambda: SearchResult.read(tmp_path)).startswith(expected)
    if "trial" in told:
        assert refusal(lambda: run(tmp_path, resume=True)).startswith(expected)


def test_a_curve_of_another_length_is_refused(tmp_path: Path) -> None:
    number = len(run(tmp_path).trials)
    with Journal.write(tmp_path) as journal:
        journal.ask([Trial(number, 1, (0, 0, 0, 0), 4)])
        journal.tell(Outcome(number, (0.5,)))
    assert f"damaged (trial {number} has 1 scores for 4 epochs)" in refusal(lambda: SearchResult.read(tmp_path))


def test_winners_are_the_best_measured_that_fit(tmp_path: Path) -> None:
    found = run(tmp_path)
    full = {t.code: found.outcomes[t.number].curve[-1] for t in found.trials if t.epochs == 4}
    for winner, most in zip(found.winners, (9, 5), strict=True):
        fitting = {code: score for code, score in full.items() if sum(code) <= most}
        assert winner.measured == max(fitting.values()) == fitting[winner.code]
        assert winner.costs == {"weight": sum(winner.code)}
    predicted = run(tmp_path / "predicted", given=plan(finalists=0))
    assert len(predicted.trials) == 18
    assert predicted.evolved is not None
    assert [list(winner.code) for winner in predicted.winners] == [list(one.codes[0]) for one in predicted.evolved]


def test_sigkill_at_random_moments(tmp_path: Path) -> None:
    """Three kills here, fifty in benchmarks/search_kills.py."""
    whole = Job(str(tmp_path / "whole"), rounds=2, batch=4)
    with started(whole) as process:
        assert process.wait() == 0
    expected, rng, lines = result(whole), random.Random(0), len(whole.log.read_text().splitlines())
    job = replace(whole, folder=str(tmp_path / "killed"))
    account = Account(job)
    while len(account.kills) < 3 and killed(job, rng.uniform(0, 0.03), lines=rng.randint(1, lines // 4)):
        account.check()
    assert len(account.kills) > 1
    with started(job) as process:
        assert process.wait() == 0
    account.finish(expected)


def test_sigkill_with_workers_leaves_nobody_and_no_lock(tmp_path: Path) -> None:
    job = Job(str(tmp_path / "killed"), workers=2, seconds=0.3)
    with started(job) as process:
        until(lambda: " begin" in f" {job.log.read_text()}".replace("\n", " "))
        process.kill()
        process.wait()
        Journal.write(job.folder).close()  # at once
        until(lambda: not session(process.pid))
    account = Account(job)
    account.check()
    assert len(account.before["trials"]) == 6


def test_sigterm_leaves_a_folder_to_resume(tmp_path: Path) -> None:
    job = Job(str(tmp_path / "ended"), seconds=0.05)
    with started(job) as process:
        until(lambda: "told" in job.log.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
    account = Account(job)
    account.check()
    assert account.before["outcomes"]


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    job = Job(str(tmp_path / "running"), seconds=PATIENCE)
    with started(job) as process:
        until(lambda: "begin" in job.log.read_text())
        said = refusal(lambda: run_search(job.plan, Curves(), job.folder, resume=True))
        assert said == (f"{job.folder}: another process is running this search; wait for it, or give another folder")
        found = SearchResult.read(job.folder)  # which is not in the way of reading
        assert (len(found.trials), found.done) == (6, False)
        process.kill()


def test_what_is_resumed_must_be_the_same_search(tmp_path: Path) -> None:
    origin = {"data": "digits", "sizes": (1, 2)}
    first = run(tmp_path, origin=origin)
    other = {"data": "cifar10"}
    assert first.origin == {"data": "digits", "sizes": [1, 2]}
    expected = {
        "holds a search; continue it with `fbnetv3 search resume` or run_search(resume=True), or give another folder": (
            {}
        ),
        "holds a search with another plan; give the same one, or another folder": {
            "given": plan(seed=1),
            "resume": True,
        },
        f"its candidates were scored otherwise ({first.origin}); give another folder": {
            "resume": True,
            "origin": other,
        },
    }
    for said, rest in expected.items():
        assert refusal(lambda r=rest: run(tmp_path, **{"origin": origin, **r})) == f"{tmp_path}: {said}"
    assert run(tmp_path, resume=True, origin=origin) == first


def test_a_refused_search_leaves_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    bound = parse_constraint
    one = Space("one", others=(Dimension("a", Choice((1,))),))
    unfit = {
        "no point of space grid meets weight<=2,3<=weight; the nearest reachable has weight 2, weight 2":
            {"given": plan(constraints=((), bound("weight<=2,3<=weight")))},
        "no point of space grid meets 17<=weight; the nearest reachable has weight 16":
            {"given": plan(within=bound("17<=weight"))},
        "bound mass<=1: there is no cost 'mass'; known: weight": {"given": plan(within=bound("mass<=1"))},
        "space grid has one point that meets weight<=0; there is nothing to search":
            {"given": plan(within=bound("weight<=0"))},
        "space one has one point; there is nothing to search": {"given": plan(space=one, constraints=((),))},
        "evaluator is 'digits'; it must be a function of a candidate and epochs":
            {"evaluator": "digits"},
        "evaluator is the class FunctionEvaluator; it must be": {"evaluator": FunctionEvaluator},
        "evaluator is the function <lambda>; it must be": {"evaluator": lambda candidate: [0.5]},
        "callbacks[0] is the class SearchCallback; callbacks must be instances of fbnetv3_zoo.search.SearchCallback":
            {"callbacks": [SearchCallback]},
        "callbacks[0]: Deaf.on_trial is never called (did you mean 'on_stage'?); there are on_stage, on_outcome":
            {"callbacks": [Deaf()]},
        "the evaluator cannot be pickled": {"executor": LocalPool(1), "evaluator": FunctionEvaluator(lambda v: 0.0)},
    }  # fmt: skip
    for said, rest in unfit.items():
        assert refusal(lambda r=rest: run(folder, **r)).startswith(said)
        assert not folder.exists()
    with pytest.raises(TypeError):
        run(folder, origin={"not plain": object()})
    assert not folder.exists()


def test_folders_of_other_commands_are_left_alone(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / "checkpoints" / "epoch-0001-step-000000.safetensors"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"")
    assert refusal(lambda: run(tmp_path / "run")) == f"{tmp_path}/run: holds a training run; give another folder"
    (tmp_path / "other").mkdir()
    report = tmp_path / "other" / "report.html"
    report.write_text('<meta name="generator" content="fbnetv3_zoo 0.2.0">')
    assert refusal(lambda: run(tmp_path / "other")) == (
        f"{report}: already exists, and is of another command; give another folder, or move that file"
    )
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {checkpoint, report}


def test_a_function_that_is_none() -> None:
    said = "FunctionEvaluator.function is 0.5; it must be a function of the values"
    assert refusal(lambda: FunctionEvaluator(0.5)) == said  # type: ignore[arg-type]


def test_failures_are_recorded_and_the_search_goes_on(tmp_path: Path) -> None:
    evaluator = Curves(raises=0, diverges=1, short=2)
    found = run(tmp_path, evaluator)
    kinds = {0: Failure.ERROR, 1: Failure.NOT_FINITE, 2: Failure.NOT_FINITE}
    for trial in found.trials:
        outcome = found.outcomes[trial.number]
        assert outcome.failure == kinds.get(trial.code[0])
        assert outcome.attempts == (2 if outcome.failure is Failure.ERROR else 1)
        assert len(outcome.curve) == (0 if outcome.failure else trial.epochs)
        if outcome.failure is Failure.ERROR:
            assert outcome.reason.startswith("ValueError: no such network (test_search_run.py, line ")
    assert {outcome.failure for outcome in found.outcomes.values()} == {None, *kinds.values()}
    assert evaluator.calls == sum(outcome.attempts for outcome in found.outcomes.values())
    assert all(winner.code[0] > 2 for winner in found.winners if winner.measured is not None)


def test_a_search_whose_candidates_all_fail_says_so_at_the_end(tmp_path: Path) -> None:
    def fails(candidate: Candidate, epochs: int) -> Sequence[float]:
        return [math.inf] * epochs

    said = refusal(lambda: run(tmp_path / "none", fails))
    assert said == (
        f"{tmp_path}/none: 0 of 18 candidates could be scored, and 2 are needed; the first failure: the score after "
        "epoch 1 of 4 is inf; mend the cause, and give another folder"
    )
    assert refusal(lambda: run(tmp_path / "none", resume=True)) == said
    calls: list[str] = []

    def once(candidate: Candidate, epochs: int) -> Sequence[float]:
        calls.append(candidate.name)
        if len(calls) > 1:
            raise RuntimeError("enough")
        return [0.5] * epochs

    assert "1 of 18 candidates could be scored, and 2 are needed; the first failure: RuntimeError: enough" in refusal(
        lambda: run(tmp_path / "one", once)
    )


def test_a_record_of_a_search_that_has_not_begun(tmp_path: Path) -> None:
    Journal.write(tmp_path).close()
    said = f"{tmp_path}: its search has not begun; start it again with `fbnetv3 search run`"
    assert refusal(lambda: SearchResult.read(tmp_path)) == said
    assert run(tmp_path).done  # and it can be begun


def test_half_written_files_are_cleared(tmp_path: Path) -> None:
    mine = [".small.arch.json.0a1b2c3d.json", ".encoder.safetensors.0a1b2c3d.safetensors", ".mine.json"]
    for name in mine:
        (tmp_path / name).touch()
    leave_half_a_file(tmp_path)
    run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*mine, LOCK, "journal.sqlite"])


def test_a_plan_is_read_as_it_was_written() -> None:
    within = parse_constraint("3<=weight<=12,weight<=9")
    trees = IterativeConfig(7, rounds=2, batch=3, correlation=0.5, predictor=Trees(members=3))
    for written in (*PLANS.values(), plan(), plan(within=within, rounds=trees, seed=2**32 - 1, space=TINY)):
        assert SearchPlan.from_json(written.to_json()) == written
        assert find_plan(written) is written


def test_wrong_plans() -> None:
    small = plan()
    texts = {
        "SearchPlan.name is 'a b'; use letters, digits, '.', '_' and '-' only": {"name": "a b"},
        "SearchPlan.space is 'tiny'; it must be a Space": {"space": "tiny"},
        "SearchPlan.rounds is 4; it must be an IterativeConfig": {"rounds": 4},
        "SearchPlan.pool is 1; it must be a whole number of at least 2": {"pool": 1},
        "SearchPlan.finalists is -1; it must be a whole number of at least 0": {"finalists": -1},
        "SearchPlan.seed is 4294967296; it must be a whole number of at most 4294967295": {"seed": 2**32},
        "SearchPlan.constraints is empty; give at least one (an empty one, (), allows everything)": {"constraints": ()},
        "SearchPlan.within is 'macs<=1M'; it must be a tuple of bounds, as parse_constraint gives":
            {"within": "macs<=1M"},
        "SearchPlan.constraints[0] is Bound(cost='macs', at_most=1.0, at_least=0.0); it must be a tuple of bounds, as "
        "parse_constraint gives": {"constraints": (Bound("macs", 1.0),)},
        "SearchPlan.constraints has one twice, or two whose files would both be called small":
            {"constraints": ((), ())},
        f"SearchPlan.name: {'n' * 201} is too long for the name of a file; choose a shorter one":
            {"name": "n" * 201, "constraints": ((),)},
    }  # fmt: skip
    for said, changes in texts.items():
        assert refusal(lambda c=changes: replace(small, **c)) == said


def test_what_a_search_finds_is_trained_longer(tmp_path: Path) -> None:
    """The paper's final training: 400 epochs, 5 of warm-up, x 0.9875 an epoch; its search: 150 epochs, x 0.963."""
    for name in ("paper", "paper-literal", "paper_recipe"):
        shipped = PLANS[name]
        code = tuple(shipped.space.sample(1, np.random.default_rng(0))[0].tolist())
        winner = Winner(shipped.constraints[0], code, 0.8, None, {})
        folder = tmp_path / name
        folder.mkdir()
        kept = {path.name: path.read_text() for path in write_winners(shipped, [winner], folder)}
        result = shipped.result_name(winner.constraint)
        final, proxy = (Recipe.from_json(kept[f"{result}.{kind}.json"]) for kind in ("recipe", "proxy.recipe"))
        assert (final.epochs, final.warmup_epochs, final.schedule) == (400, 5, ExponentialDecay(0.9875))
        assert proxy == shipped.space.candidate(code).recipe
        assert proxy.epochs == 150
        assert replace(final, epochs=150, schedule=ExponentialDecay(0.963)) == proxy
    assert find_plan("tiny").final is None
    said = refusal(lambda: FinalTraining(400, "cosine", 5))  # type: ignore[arg-type]
    assert said == "FinalTraining.schedule is 'cosine'; it must be ExponentialDecay or CosineDecay"


def test_wrong_files_of_plans(tmp_path: Path) -> None:
    path, text = tmp_path / "mine.json", plan().to_json()
    path.write_text(text)
    assert find_plan(path) == find_plan(str(path)) == plan()
    assert find_plan("tiny") is PLANS["tiny"]
    wrong = {
        text.replace('"pool": 100', '"pools": 100'): "plan has an unknown key 'pools' (did you mean 'pool'?)",
        text.replace('"pool": 100', '"pool": 1e2'): "plan.pool is 100.0; it must be a whole number",
        text.replace('"batch": 6', '"batch": NaN'): "plan JSON cannot be read: NaN is not a number of JSON; "
        "correct the file, or write it again",
        text.replace('"rounds"', '"round"', 1): "plan has an unknown key 'round' (did you mean 'rounds'?)",
        text.replace('"version": 1', '"version": 2'): "plan JSON has version 2; this release reads version 1",
        to_json(SPACE): 'plan JSON lacks "format": "fbnetv3_zoo.plan"; write such files with to_json()',
    }
    for content, said in wrong.items():
        assert content != text
        path.write_text(content)
        assert refusal(lambda: find_plan(path)) == f"{path}: {said}"
    path.write_bytes(b"\xff" + text.encode()[:-20])
    assert refusal(lambda: find_plan(path)).startswith(f"{path}: plan JSON cannot be read: ")
    assert refusal(lambda: find_plan(tmp_path / "no.json")) == (f"{tmp_path}/no.json: no such file")
    assert refusal(lambda: find_plan("tin")) == (
        "unknown plan 'tin' (did you mean 'tiny'?); shipped are paper, paper-literal, paper_recipe, tiny, letters, "
        "others are files"
    )

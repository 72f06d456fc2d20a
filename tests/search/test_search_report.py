"""The report of a search: its figures computed again, searches of all kinds and states, that it stands alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_reader import Reader
from scipy.stats import spearmanr, t

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.search.evaluation import Limits, Outcome, RecordedCosts, Recording, Trial
from fbnetv3_zoo.search.plan import SearchPlan, find_plan
from fbnetv3_zoo.search.predictors import MLP, PredictedScores, fit
from fbnetv3_zoo.search.predictors.mlp import Encoder
from fbnetv3_zoo.search.report import analysis, write_report
from fbnetv3_zoo.search.report import page as report
from fbnetv3_zoo.search.report.arch_diagram import sketch
from fbnetv3_zoo.search.result import SearchResult
from fbnetv3_zoo.search.run import SearchCallback, run_search
from fbnetv3_zoo.search.space import (
    PAPER_RECIPE,
    TINY,
    Candidate,
    Choice,
    Codes,
    Costs,
    Dimension,
    Levels,
    NetworkCosts,
    Range,
    Space,
    parse_constraint,
)
from fbnetv3_zoo.search.stages import EvolutionConfig, IterativeConfig
from fbnetv3_zoo.search.stages.pareto import undominated
from fbnetv3_zoo.utils.intervals import mean_interval

SMALL = MLP(members=2, hidden=8, embedding=8, steps=40)
ROUNDS = IterativeConfig(epochs=6, rounds=3, batch=12, predictor=SMALL)
BOUNDS = (parse_constraint("macs<=600k"), parse_constraint("macs<=1M,parameters<=60k"))
JOINT = SearchPlan(
    "joint", TINY, ROUNDS, pool=300, constraints=BOUNDS, finalists=2, evolving=EvolutionConfig(32, 300, 2)
)
HOSTILE = Space(
    "my <i>space</i>",
    others=(
        Dimension("<script>alert(1)</script>", Choice(("<b>red</b>", "a & b", "日本\n"))),
        Dimension("x$y_1$", Levels((0, 0.25, 1))),
        Dimension("long" * 40, Range(0, 9)),
    ),
)
SECTIONS = [
    "", "Best candidates", "Score against cost", "Rounds", "Predictor", "Sample efficiency", "Early stop", "Evolution",
    "What the dimensions do", "How it was done",
]  # fmt: skip


@dataclass(frozen=True)
class Rising:
    """Noisy curves that rise to a score of the candidate's own, the same in every process; some fail."""

    failing: bool = False

    def __call__(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        rng = np.random.default_rng(zlib.crc32(repr(sorted(candidate.values.items())).encode()))
        place = rng.integers(8) if self.failing else 7
        if place == 0:
            raise RuntimeError("no such thing in <layer 3> & more")
        if place == 1:
            return [float("nan")] * epochs
        values = [v for v in candidate.values.values() if isinstance(v, (int, float)) and not isinstance(v, bool)]
        top = 0.6 + 0.1 * np.tanh(np.mean(values) / 10) + 0.05 * rng.random()
        shares = np.arange(1, epochs + 1) / epochs
        return [float(v) for v in top * (1 - np.exp(-4 * shares)) + rng.normal(0, 0.02, epochs) * (1.05 - shares)]


class Until(SearchCallback):
    """Interrupts a search after so many outcomes."""

    def __init__(self, outcomes: int) -> None:
        self.left = outcomes

    def on_outcome(self, trial: Trial, outcome: Outcome) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def _searched(plan: SearchPlan, folder: Path, *, failing: bool = False, until: int = 0) -> SearchResult:
    try:
        run_search(
            plan, Rising(failing), folder, limits=Limits(retries=0), callbacks=[Until(until)] if until else [],
            origin={"evaluator": {"kind": "curves <made> up", "none": None}}, report=False,
        )  # fmt: skip
    except KeyboardInterrupt:
        assert until
    return SearchResult.read(folder)


def _page(record: SearchResult, folder: Path, **given: Any) -> tuple[Reader, str]:
    write_report(record, folder / "page.html", **given)
    content = (folder / "page.html").read_text(encoding="utf-8")
    return Reader(content), content


@pytest.fixture(autouse=True)
def _few_effects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawings take time; the page of `joint`, which is made before this, has all."""
    monkeypatch.setattr(report, "EFFECTS", 1)


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchResult, Reader, str]:
    folder = tmp_path_factory.mktemp("joint")
    record = _searched(JOINT, folder)
    return (record, *_page(record, folder))


def _tau(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau-b by counting pairs."""
    signs = [(np.sign(a - c), np.sign(b - d)) for (a, b), (c, d) in combinations(zip(first, second, strict=True), 2)]
    untied = [sum(sign[n] != 0 for sign in signs) for n in (0, 1)]
    return float(sum(a * b for a, b in signs) / np.sqrt(untied[0] * untied[1]))


def test_it_has_everything(joint: tuple[SearchResult, Reader, str]) -> None:
    _, page, _ = joint
    assert [section for section in page.texts if section != "Search joint"] == SECTIONS
    told = page.told("How it was done")
    for expected in ("Seed 0", "300 points", "3 rounds of 12 candidates, at most 6 epochs",
                     "MLP, members 2, hidden 8", "macs ≤ 600k", "Origin: evaluator.kind curves <made> up"):  # fmt: skip
        assert expected in told
    assert "evaluator.none" not in told


def test_winners_and_rounds(joint: tuple[SearchResult, Reader, str]) -> None:
    record, page, _ = joint
    rows = page.rows["Best candidates"]
    for row, winner in zip(rows[1:3], record.winners, strict=True):
        assert row[0] == record.plan.result_name(winner.constraint)
        measured = "not trained in full" if winner.measured is None else f"{winner.measured:.4f}"
        assert row[2:4] == [f"{winner.predicted:.4f}", measured]
    values = {row[0]: row[1:] for row in rows}
    shown = [record.plan.space.values(winner.code)["recipe.optimizer"] for winner in record.winners]
    assert values["recipe.optimizer"] == shown
    assert "row1.channels" not in values  # the drawings show it
    stop = record.stop_epoch
    for number in (1, 2, 3):
        scores = [record.outcomes[one.number].curve[stop - 1] for one in record.trials if one.round == number]
        epochs = str(6 if number == 1 else stop)
        expected = [str(number), epochs, "12", "12", "0", f"{np.median(scores):.4f}", f"{max(scores):.4f}"]
        assert page.rows["Rounds"][number] == expected


def test_predictions_ahead_are_those_of_the_search(joint: tuple[SearchResult, Reader, str]) -> None:
    record, page, _ = joint
    encoder, stop = Encoder.load(record.folder / "encoder.safetensors"), record.stop_epoch
    trials = [trial for trial in record.trials if trial.round <= 3]
    codes = np.array([trial.code for trial in trials])
    scores = np.array([record.outcomes[trial.number].curve[stop - 1] for trial in trials])
    rows = {row[0]: row[1:] for row in page.rows["Predictor"]}
    predicted: list[float] = []
    for number in (2, 3):
        known, new = slice(0, 12 * (number - 1)), slice(12 * (number - 1), 12 * number)
        predictor = fit(SMALL, TINY, codes[known], scores[known], encoder=encoder, seed=number - 1)
        found = predictor.predict(codes[new]).mean
        predicted += found.tolist()
        guess = ((scores[known].mean() - scores[new]) ** 2).mean()
        error = ((found - scores[new]) ** 2).mean()
        assert rows[f"ahead, round {number}"] == [
            "12", f"{_tau(found.tolist(), scores[new].tolist()):.3f}", f"{error:.3g}", f"{guess:.3g}"
        ]  # fmt: skip
    assert rows["ahead, all rounds"][:2] == ["24", f"{_tau(predicted, scores[12:].tolist()):.3f}"]
    assert rows["cross-validated"][0] == "36"
    assert f"{float(rows['cross-validated'][1]):.2f}" in page.told()
    assert record.encoder is not None
    assert rows["macs"] == [f"{getattr(record.encoder['macs'], of):.4f}" for of in ("r2", "kendall")]


def test_cross_validation_sees_nothing_of_what_it_predicts(joint: tuple[SearchResult, Reader, str]) -> None:
    record, _, _ = joint
    codes = TINY.sample(80, np.random.default_rng(1))
    noise = np.random.default_rng(2).random(80)
    scored = analysis.ScoredPoints(codes, noise, np.ones(80, np.int64))
    found = analysis.cross_validated(record, scored, None)
    assert abs(found.kendall) < 0.15
    assert found.kendall == pytest.approx(_tau(found.predicted.tolist(), noise.tolist()))
    known = fit(MLP(members=2), TINY, codes, noise).predict(codes).mean
    assert _tau(known.tolist(), noise.tolist()) > 0.8  # which it could have learned by heart
    assert found.guessing_mse == pytest.approx(noise.var(), rel=0.1)


def test_the_chosen_epoch(joint: tuple[SearchResult, Reader, str]) -> None:
    record, page, _ = joint
    curves = np.array([record.outcomes[trial.number].curve for trial in record.trials if trial.round == 1])
    correlations = [float(spearmanr(curves[:, e], curves[:, -1]).statistic) for e in range(6)]
    epoch = next(e for e, value in enumerate(correlations, start=1) if value >= 0.92)
    said = f"12 candidates of round 1, after each epoch and after the last. Chosen is epoch {epoch} "
    assert f"{said}({correlations[epoch - 1]:.3f}), the first that reaches 0.92" in page.told("Early stop")
    assert f"{epoch} of 6" in page.told()


def test_sample_efficiency_is_measured_on_others(joint: tuple[SearchResult, Reader, str]) -> None:
    record, page, _ = joint
    encoder, scored = Encoder.load(record.folder / "encoder.safetensors"), analysis.ScoredPoints.of(record)
    found = analysis.efficiency(record, scored, encoder)
    assert [one.pretrained for one in found] == [True, False]
    for one in found:
        assert (one.sizes, one.tested, one.total) == ((10, 20), 9, 36)
        assert one.mse.shape == one.kendall.shape == (2, analysis.REPEATS)
    assert not np.array_equal(found[0].mse, found[1].mse)
    told = page.told("Sample efficiency")
    assert "Mean over 6 random parts of the 36 candidates" in told
    assert "9 others are predicted. Both lines use the same candidates." in told
    mean, low, high = mean_interval(found[0].mse)
    for row, ends in zip(found[0].mse, zip(mean, low, high, strict=True), strict=True):
        error = row.std(ddof=1) / np.sqrt(len(row))
        assert ends == pytest.approx((row.mean(), *t.interval(0.95, len(row) - 1, row.mean(), error)))


@dataclass(frozen=True)
class Known:
    """Predicts what a function of the codes gives; its members lie 0.5 apart."""

    function: Callable[[Codes], Any]

    def predict(self, codes: Codes) -> PredictedScores:
        return PredictedScores(np.stack([self.function(codes) - 0.25, self.function(codes) + 0.25]))


def _recording(space: Space, tmp_path: Path) -> SearchResult:
    return SearchResult(SearchPlan("p", space, ROUNDS), {}, {}, None, None, None, None, None, (), tmp_path, (), {})


def test_effects_are_those_of_a_known_function(tmp_path: Path) -> None:
    parts: tuple[Any, ...] = ("architecture", "architecture", "recipe", "recipe")
    space = Space("s", others=tuple(Dimension(f"d{n}", Range(0, 2), part) for n, part in enumerate(parts)))
    record = _recording(space, tmp_path)
    predictor = Known(lambda codes: 3.0 * codes[:, 0] + (codes[:, 2] - 1) * (codes[:, 3] - 1))
    found = {effect.name: effect for effect in analysis.effects(record, predictor, None)}
    assert next(iter(found)) == "d0"
    assert found["d0"].total == pytest.approx(3 * np.sqrt(2 / 3))
    assert found["d0"].alone == pytest.approx(found["d0"].total)
    assert found["d0"].high - found["d0"].low == pytest.approx([0.5] * 3)
    assert found["d1"].total == pytest.approx(0, abs=1e-9)
    assert found["d2"].total == pytest.approx(2 / 3, rel=0.1)  # its steps are as large as d3 is from 1
    assert found["d2"].alone < 0.1
    shares = analysis.shares(record, predictor, None)
    assert shares is not None
    assert shares.architecture + shares.recipe + shares.together == pytest.approx(1)
    assert shares.architecture == pytest.approx(6 / (6 + 4 / 9), abs=0.03)
    assert shares.together == pytest.approx(0, abs=1e-9)
    product = analysis.shares(record, Known(lambda codes: (codes[:, 0] - 1.0) * (codes[:, 2] - 1)), None)
    assert product is not None
    assert product.together > 0.9
    assert analysis.shares(_recording(PAPER_RECIPE, tmp_path), predictor, None) is None


def test_effects_are_of_points_within_the_bounds(tmp_path: Path) -> None:
    within = parse_constraint("macs<=500k")
    record = replace(_recording(TINY, tmp_path), plan=replace(JOINT, within=within))
    points = analysis.base_points(record, NetworkCosts(TINY), 50)
    assert points.shape == (50, len(TINY.dimensions))
    assert NetworkCosts(TINY)(points)["macs"].max() <= 500_000


def test_points_of_a_recording_do_not_limit_the_effects(tmp_path: Path) -> None:
    record = replace(_recording(TINY, tmp_path), plan=find_plan("tiny"))
    codes = TINY.sample(4, np.random.default_rng(0))
    recorded = RecordedCosts(Recording(TINY, codes, np.ones((4, 1, 1)), NetworkCosts(TINY)(codes)))
    assert len(analysis.base_points(record, recorded, 20)) == 20


def test_the_front_is_what_nothing_surpasses() -> None:
    rng = np.random.default_rng(0)
    cost, score = rng.integers(0, 20, 60).astype(float), rng.integers(0, 20, 60).astype(float)
    found = undominated(cost, score)
    for n in range(60):
        beaten = ((cost <= cost[n]) & (score >= score[n]) & ((cost < cost[n]) | (score > score[n]))).any()
        same = [m for m in found if (cost[m], score[m]) == (cost[n], score[n])]
        assert len(same) == (0 if beaten else 1)
    assert (np.diff(cost[found]) > 0).all()


def test_the_drawn_network(tiny_arch: Arch) -> None:
    drawn = sketch(tiny_arch)
    assert drawn.count("<rect") == len(tiny_arch.blocks) == 6
    assert drawn.count("<circle") == 3  # with squeeze-excite
    assert drawn.count('class="wider"') == 3  # 5 x 5
    assert drawn.count('class="cut"') == 1  # the head's 32 channels after 16
    assert ">32</text>" in drawn


def test_it_stands_alone_and_is_always_the_same(joint: tuple[SearchResult, Reader, str], tmp_path: Path) -> None:
    record, page, content = joint
    assert not re.search(r"https?:|@import|<script|<link|\bon\w+=", content)
    assert all(url.startswith("#") for url in re.findall(r"url\((.*?)\)", content))
    references = [value for _, key, value in page.attributes if key in ("href", "src", "xlink:href", "data")]
    assert references
    assert all(value is not None and value.startswith("#") for value in references)
    charts_only = content.partition("</style>")[2]
    assert not re.search(r"(?:fill|stroke|color): #[0-9a-f]{6}", charts_only)  # all are the page's
    script = (
        "import sys\nfrom fbnetv3_zoo.search import SearchResult, write_report\n"
        "write_report(SearchResult.read(sys.argv[1]), sys.argv[2])"
    )
    again = tmp_path / "again.html"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", script, record.folder, again], check=True, env=environment)
    assert again.read_text(encoding="utf-8") == content


def test_names_from_outside_and_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "EFFECTS", 3)
    record = _searched(
        SearchPlan("hostile", HOSTILE, replace(ROUNDS, batch=16, rounds=2), pool=90), tmp_path, failing=True
    )
    failed = [outcome for outcome in record.outcomes.values() if outcome.failure is not None]
    assert {outcome.failure.value for outcome in failed if outcome.failure} == {"error", "not finite"}
    page, content = _page(record, tmp_path)
    assert "Score against cost" not in page.texts
    assert not re.search(r"<script|<b>red|<i>space|<layer", content)
    dimensions = [row[0] for row in page.rows["What the dimensions do"]]
    assert {"<script>alert(1)</script>", "x$y_1$", "long" * 40} <= set(dimensions)
    assert "<b>red</b>" in page.told("What the dimensions do")
    errors = [outcome.number for outcome in failed if outcome.failure and outcome.failure.value == "error"]
    rows = {row[1]: row for row in page.rows["Failures"]}
    assert rows["error"][0] == str(len(errors))
    assert "no such thing in <layer 3> & more" in rows["error"][2]
    assert rows["error"][3].removesuffix(", ...") == ", ".join(map(str, errors[:8]))
    assert f"{len(failed)} of {len(record.outcomes)} candidates have no score." in page.told("Failures")
    assert f"{len(failed)} of them failed" in page.told()
    assert "There is no pretrained encoder to compare with." in page.told("Sample efficiency")


@pytest.mark.parametrize(
    ("outcomes", "state", "missing"),
    [
        (1, "in round 1 of 3; 11 candidates still", {"Evolution", "Early stop", "Sample efficiency", SECTIONS[-2]}),
        (17, "in round 2 of 3; 7 candidates still", {"Evolution"}),
        (37, "while its finalists are trained; ", set()),
    ],
)
def test_a_search_that_has_not_ended(outcomes: int, state: str, missing: set[str], tmp_path: Path) -> None:
    record = _searched(JOINT, tmp_path, until=outcomes)
    assert len(record.outcomes) == outcomes
    page, _ = _page(record, tmp_path)
    assert f"The search has not ended: it is {state}" in page.told()
    assert [section for section in page.texts if section != "Search joint"] == [
        section for section in SECTIONS if section not in missing
    ]
    assert "There are no results yet; these are the best so far: " in page.told("Best candidates")


def test_a_search_of_which_nothing_could_be_scored_yet(tmp_path: Path) -> None:
    whole = _recording(TINY, tmp_path)
    page, _ = _page(whole, tmp_path)
    assert "it is before its first round" in page.told()
    assert set(page.texts) - {"Search p"} <= {"", "How it was done"}


def test_a_lost_encoder_is_told_of(joint: tuple[SearchResult, Reader, str], tmp_path: Path) -> None:
    record, _, _ = joint
    few = replace(record, folder=tmp_path, trials=record.trials[:4], evolved=None, winners=())
    page, _ = _page(replace(few, outcomes={n: record.outcomes[n] for n in range(4)}), tmp_path)
    assert "The predictors of this report do without pretraining: " in page.told()
    assert "encoder.safetensors" in page.told()


class Latency:
    """MACs and a latency made up from them."""

    names = ("macs", "latency_ms")

    def __call__(self, codes: Codes) -> Costs:
        macs = NetworkCosts(TINY)(codes)["macs"]
        return {"macs": macs, "latency_ms": macs / 1e6}


def test_every_bounded_cost_has_its_chart(joint: tuple[SearchResult, Reader, str], tmp_path: Path) -> None:
    record, page, _ = joint
    told = page.told("Score against cost")
    assert "Score against macs ." in told
    assert "Score against parameters ." in told
    assert "Score against peak_activation" not in told
    assert "not to be compared with those of the search" in told
    plan = replace(record.plan, constraints=(parse_constraint("latency_ms<=0.5"), parse_constraint("latency_ms<=1")))
    few = replace(record, plan=plan, trials=record.trials[:4], winners=(), folder=tmp_path, encoder=None)
    page, _ = _page(replace(few, outcomes={n: record.outcomes[n] for n in range(4)}), tmp_path, costs=Latency())
    told = page.told("Score against cost")
    assert "Score against latency_ms ." in told
    assert "parameters" not in told

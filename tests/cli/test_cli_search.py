"""``fbnetv3 search``: from a plan to files that the other commands take, what it tells, what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from refusals import refusal
from shell import run, succeed

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.cli.search.options import CandidateOptions
from fbnetv3_zoo.recipes import Recipe
from fbnetv3_zoo.search import PLANS, SPACES, Recording, SearchPlan, SearchResult, Space, parse_constraint
from fbnetv3_zoo.search.evaluation.config import EvaluatorConfig
from fbnetv3_zoo.search.executors import InProcess, LocalPool, RayExecutor
from fbnetv3_zoo.search.journal import Journal
from fbnetv3_zoo.search.space import Choice, NetworkCosts, Setting, draw_pool
from fbnetv3_zoo.training import Execution, Precision

TINY = SPACES["tiny"]
assert TINY.recipes is not None
BASE = TINY.recipes.base


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of 90 points of the space "tiny" whose score rises with MACs and with the epochs."""
    costs = NetworkCosts(TINY)
    pool = draw_pool(TINY, costs, parse_constraint("macs<=1M"), 90, np.random.default_rng(0))
    level = 0.5 + 0.4 * pool.costs["macs"] / 1e6
    curves = level[:, None, None] * np.linspace(0.9, 1, 6)
    path = tmp_path_factory.mktemp("table") / "curves.safetensors"
    Recording(TINY, pool.codes, curves, pool.costs).save(path)
    return path


@pytest.fixture(scope="module")
def searched(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search in the table."""
    folder = tmp_path_factory.mktemp("searched") / "run"
    ended = run(
        "search", "run", "--plan", "tiny", "--table", table, "--output", folder, "--executor", "in-process",
        "--constraint", "macs<=0.5M", "--constraint", "macs<=1M,parameters<=60k", "--name", "mine",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    lines = ended.err.splitlines()
    assert lines[0] == "stage 1: 90 points in the pool"
    assert lines[1] == "round 1: 8 candidates, 6 epochs each"
    assert lines[2].startswith("  candidate   0  score 0.")
    assert "mine-macs-500k: measured 0." in ended.out
    return folder


def test_its_results_are_files_for_the_other_commands(searched: Path) -> None:
    record = SearchResult.read(searched)
    assert record.done
    for winner, name in zip(record.winners, ("mine-macs-500k", "mine-macs-1M-parameters-60k"), strict=True):
        arch = Arch.from_json((searched / f"{name}.arch.json").read_bytes())
        recipe = Recipe.from_json((searched / f"{name}.recipe.json").read_bytes())
        candidate = record.candidate(winner)
        assert (arch, recipe, arch.name) == (candidate.arch, candidate.recipe, name)
        assert succeed("info", searched / f"{name}.arch.json").startswith(name)
        assert "learning_rate" in succeed("recipe", "show", searched / f"{name}.recipe.json")
    first, second = record.winners
    assert first.costs["macs"] <= 5e5
    assert second.costs["macs"] <= 1e6
    assert second.costs["parameters"] <= 60_000
    assert (searched / "report.html").stat().st_size > 10_000


def test_the_winner_is_the_best_that_was_trained_in_full(searched: Path) -> None:
    record = SearchResult.read(searched)
    costs = NetworkCosts(record.plan.space)
    full = [trial for trial in record.trials if trial.epochs == record.plan.rounds.epochs]
    macs = costs(np.array([trial.code for trial in full]))["macs"]
    best = max(record.outcomes[t.number].curve[-1] for t, m in zip(full, macs, strict=True) if m <= 5e5)
    assert record.winners[0].measured == best


def test_status_tells_how_far_it_is(searched: Path, tmp_path: Path) -> None:
    told = json.loads(succeed("search", "status", searched, "--json"))
    assert told["done"]
    assert (told["asked"], told["failed"]) == (told["finished"], {})
    assert [winner["name"] for winner in told["winners"]] == ["mine-macs-500k", "mine-macs-1M-parameters-60k"]
    assert succeed("search", "status", searched).startswith("mine: done; ")
    with Journal.write(tmp_path) as journal:
        journal.note("origin", {})
        journal.note("plan", PLANS["tiny"].to_json())
    assert succeed("search", "status", tmp_path).splitlines() == [
        "tiny: round 0 of 4; 0 of 0 candidates finished", "up to 34 candidates in all",
    ]  # fmt: skip


def test_a_search_goes_on_where_it_was(
    searched: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fbnetv3_zoo.search.run.write_report", lambda record, path, costs: path.write_text("a page"))
    options = ("--plan", "tiny", "--table", table, "--executor", "in-process", "--name", "mine")
    bounds = ("--constraint", "macs<=0.5M", "--constraint", "macs<=1M,parameters<=60k")
    assert run("search", "run", *options, *bounds, "--output", tmp_path, "--stages", 2).code == 0
    assert not SearchResult.read(tmp_path).done
    assert run("search", "resume", tmp_path, "--executor", "in-process").code == 0
    assert SearchResult.read(tmp_path).winners == SearchResult.read(searched).winners
    ended = run("search", "resume", tmp_path, "--executor", "in-process")
    assert (ended.code, "candidate" in ended.err) == (0, False)


def test_export_writes_a_recording_to_search_again(searched: Path, tmp_path: Path) -> None:
    files = json.loads(succeed("search", "export", searched, "--output", tmp_path, "--json"))["files"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(Path(file).name for file in files)
    recording = Recording.load(tmp_path / "mine.recording.safetensors")
    assert len(recording) == len({trial.code for trial in SearchResult.read(searched).trials})


def test_evolution_alone_finds_networks_for_new_bounds(searched: Path, tmp_path: Path) -> None:
    told = json.loads(succeed("search", "evolve", searched, "--constraint", "macs<=0.4M", "--json"))
    assert told["winners"][0]["costs"]["macs"] <= 4e5
    assert told["winners"][0]["measured"] is None
    front = json.loads(succeed("search", "evolve", searched, "--pareto", "macs", "--steps", 3, "--json"))
    costs, scores = [point["cost"] for point in front], [point["score"] for point in front]
    assert costs == sorted(costs)
    assert scores == sorted(scores)


def test_pretraining_alone_tells_how_well_it_knows_the_statistics(tmp_path: Path) -> None:
    file = tmp_path / "encoder.safetensors"
    told = json.loads(succeed("search", "pretrain", "--plan", "tiny", "--pool", 4000, "--output", file, "--json"))
    assert told["held_out"]["macs"]["kendall"] > 0.8
    assert file.exists()


def test_spaces_and_plans_are_shown_and_read_back(tmp_path: Path) -> None:
    assert Space.from_json(succeed("search", "space", "paper", "--json")) == SPACES["paper"]
    assert "3.152e+20 architectures x 9.453e+06 recipes" in succeed("search", "space", "paper")
    inside = succeed("search", "space", "paper", "--contains", "fbnetv3_b").splitlines()
    assert inside[:2] == ["fbnetv3_b is a network of space paper", "  resolution: 248"]
    assert succeed("search", "space", "paper", "--contains", "fbnetv3_d").splitlines() == [
        "fbnetv3_d is no network of space paper",
        "  row 8: channels is 240, not among 180, 184, 188, ..., 224",
    ]
    assert SearchPlan.from_json(succeed("search", "plan", "paper")) == PLANS["paper"]


REFUSED = {
    "--plan tinny": "unknown plan 'tinny' (did you mean 'tiny'?); shipped are ",
    "--space nope": "unknown space 'nope'; shipped are paper, paper_recipe, tiny, letters, others are JSON files",
    "--constraint macs<1M": "bound 'macs<1M' cannot be read; write 'macs<=450M' or ",
    "--constraint flops<=1M": "bound flops<=1M: there is no cost 'flops'",
    "--constraint macs<=1k": "no point of space tiny meets macs<=1k; the nearest reachable has macs 177,024",
    "--data digits --table x": "a search needs data to train on (--data) or a recording (--table), one of the two",
    "--latency none.json": "none.json: no such file",
    "--executor poool": "unknown executor 'poool' (did you mean 'pool'?); choose from ",
    "--model torchvision:resnett18": "torchvision has no model 'resnett18' (did you mean 'resnet18'?)",
    "--epochs 0": "--epochs is 0; it must be a whole number of at least 1",
    "--processes-per-candidate 0": "--processes-per-candidate is 0; it must be a whole number of at least 1",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_it_refuses(arguments: str, tmp_path: Path) -> None:
    ended = run("search", "run", *arguments.split(" "), "--output", tmp_path / "out")
    assert ended.code == 2
    assert REFUSED[arguments] in ended.err
    assert ended.err.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_a_recording_needs_no_processes(table: Path, tmp_path: Path) -> None:
    said = run("search", "run", "--table", table, "--processes-per-candidate", 2, "--output", tmp_path / "out").err
    assert said == ("error: --processes-per-candidate is for candidates that are trained; leave it out with --table\n")
    assert not (tmp_path / "out").exists()


def test_folders_it_refuses(searched: Path, table: Path, tmp_path: Path) -> None:
    ended = run("search", "run", "--plan", "tiny", "--table", table, "--output", searched)
    assert ended.err == (
        f"error: {searched}: holds a search; continue it with `fbnetv3 search resume` or run_search(resume=True), or "
        "give another folder\n"
    )
    before = (searched / "report.html").read_bytes()
    assert run("train", "digits", "--output", searched).err.splitlines()[-1] == (
        f"error: {searched}: holds a search; give another folder"
    )
    assert (searched / "report.html").read_bytes() == before
    assert "holds no search of `fbnetv3 search run`" in run("search", "resume", tmp_path).err
    assert refusal(lambda: SearchResult.read(tmp_path)).endswith("start one with it")


def test_evolve_needs_all_rounds(table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    begun = run("search", "run", "--table", table, "--output", folder, "--executor", "in-process", "--stages", 1)
    assert begun.code == 0
    said = run("search", "evolve", folder, "--constraint", "macs<=0.5M")
    assert said.code == 2
    assert f"{folder}: its rounds are not finished, so there is no final predictor; run " in said.err
    assert said.err.endswith(f" search resume {folder} first\n")
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".json") == []


def test_evolve_leaves_the_winners_of_the_search(searched: Path) -> None:
    before = {path.name: path.read_bytes() for path in searched.glob("*.json")}
    own = str(SearchResult.read(searched).winners[0].constraint[0])
    told = run("search", "evolve", searched, "--constraint", own)
    said = f"error: --constraint '{own}' is the search's own, whose winner stays; give another bound\n"
    assert (told.code, told.err) == (2, said)
    assert {path.name: path.read_bytes() for path in searched.glob("*.json")} == before


def test_evolve_needs_the_encoder_of_the_search(searched: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(searched, tmp_path / "copy"))
    (folder / "encoder.safetensors").unlink()
    told = run("search", "evolve", folder, "--constraint", "macs<=0.4M")
    assert (told.code, told.err.startswith(f"error: {folder}/encoder.safetensors: ")) == (2, True)


def test_a_table_of_the_package_is_searched_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    options = ("--plan", "letters", "--table", "nars-letters", "--executor", "in-process")
    assert run("search", "run", *options, "--output", folder, "--stages", 1).code == 0
    assert SearchResult.read(folder).origin["table"] == "nars-letters"
    monkeypatch.chdir(tmp_path)
    assert run("search", "resume", folder, "--executor", "in-process", "--stages", 1).code == 0
    said = run("search", "run", "--table", "nars-leters", "--output", tmp_path / "other").err
    assert said == f"error: {tmp_path}/nars-leters: no such file (did you mean 'nars-letters'?)\n"


def test_a_recording_that_was_moved(table: Path, tmp_path: Path) -> None:
    """It is told by what it holds, not by where it lies."""
    place, moved, folder = tmp_path / "a.safetensors", tmp_path / "b.safetensors", tmp_path / "run"
    place.write_bytes(table.read_bytes())
    assert (
        run("search", "run", "--table", place, "--output", folder, "--executor", "in-process", "--stages", 1).code == 0
    )
    place.rename(moved)
    resume = ("search", "resume", folder, "--executor", "in-process", "--stages", 1)
    said = run(*resume)
    assert said.code == 2
    assert said.err.startswith(f"error: {place}: no such file")
    assert "give its new path (--data, --subset, --table, --latency)" in said.err
    assert run(*resume, "--table", moved).code == 0
    assert SearchResult.read(folder).origin["table"] == str(moved)
    assert run(*resume).code == 0
    other = Recording.load(moved)
    Recording(other.space, other.codes[:50], other.curves[:50], {k: v[:50] for k, v in other.statistics.items()}).save(
        moved
    )
    said = run(*resume)
    assert said.code == 2
    assert f"{moved} has changed since the search started (its contents differ)" in said.err
    assert "was started without --data; leave it out" in run(*resume, "--data", tmp_path).err


def test_data_that_was_moved_or_changed(tmp_path: Path) -> None:
    from PIL import Image

    photos = tmp_path / "photos"
    for n in range(40):
        (photos / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (n * 6, 90, 200 - n)).save(photos / "ab"[n % 2] / f"{n}.png")
    folder = tmp_path / "run"
    begun = run("search", "run", "--data", photos, "--output", folder, "--executor", "in-process", "--stages", 1)
    assert begun.code == 0, begun.err
    elsewhere = photos.rename(tmp_path / "elsewhere")
    resume = ("search", "resume", folder, "--executor", "in-process", "--stages", 1)
    assert "give its new path (--data" in run(*resume).err
    assert run(*resume, "--data", elsewhere).code == 0
    (elsewhere / "a" / "0.png").unlink()
    said = run(*resume)
    assert said.code == 2
    assert "has changed since the search started (train" in said.err


def test_how_candidates_are_computed() -> None:
    """On a GPU, each has one of its own, unless said otherwise; processes that load images count as cores."""
    options = CandidateOptions("pool:2", device="cuda", precision="bf16", accumulation=4, compile=True, workers=3)
    assert options._execution() == Execution("cuda", 3, Precision.BFLOAT16, True, accumulation=4)
    assert options._executor() == LocalPool(2, gpus_per_task=1, cpus_per_task=4)
    shared = replace(options, executor="ray", gpus_per_candidate=0.25)
    assert shared._executor() == RayExecutor(cpus_per_task=4, gpus_per_task=0.25)
    assert replace(options, executor="in-process")._executor() == InProcess(gpus_per_task=1)
    several = replace(options, executor="pool:1", processes_per_candidate=2)
    assert several._executor() == LocalPool(1, gpus_per_task=2, cpus_per_task=8)
    whole = replace(options, executor="ray", gpus_per_candidate=2)
    assert (whole._processes(), whole._executor()) == (2, RayExecutor(cpus_per_task=8, gpus_per_task=2))
    on_cpu = replace(options, device="cpu", processes_per_candidate=3)
    assert (on_cpu._processes(), on_cpu._executor()) == (3, LocalPool(2, cpus_per_task=12))
    assert refusal(replace(shared, processes_per_candidate=2)._processes) == (
        "--processes-per-candidate 2 needs --device cuda and as many GPUs, not cuda and 0.25; "
        "leave --gpus-per-candidate out, or give 2"
    )
    assert CandidateOptions("pool:2", gradient_checkpointing=True)._execution() == Execution(
        gradient_checkpointing=True
    )
    assert CandidateOptions("pool:2")._executor() == LocalPool(2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_gpus_that_this_machine_has_not(tmp_path: Path) -> None:
    """Nodes of Ray may have them."""
    plan, config = PLANS["tiny"], EvaluatorConfig(data="digits")
    told = refusal(lambda: CandidateOptions("pool", device="cuda")._fitted(plan, config))
    assert told.startswith("device 'cuda' cannot be used (")
    assert CandidateOptions("ray", device="cuda")._fitted(plan, config) == Execution("cuda")
    assert refusal(lambda: CandidateOptions("ray", device="cuda", accumulation=0)._fitted(plan, config)) == (
        "--accumulation 0 looks at a GPU of this machine, which has none; give a number"
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"base": replace(BASE, balanced=True)},
         "recipe: candidates of a search know no balanced, frozen_stages, patience or weight_levels; leave them out"),
        ({"settings": (Setting("patience", Choice((0, 3))),)},
         "recipes: candidates of a search know no patience; leave it out"),
        ({"base": replace(BASE, epochs=5)},
         "recipes: have 5 epochs, of which the rounds of the plan train 6; make them equal"),
        ({"settings": (Setting("epochs", Choice((4, 8))),)},
         "recipes: have 4 epochs, of which the rounds of the plan train 6; make them equal"),
    ],
)  # fmt: skip
def test_recipes_that_candidates_cannot_be_trained_by(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    tiny = PLANS["tiny"]
    assert tiny.space.recipes is not None
    plan = replace(tiny, space=replace(tiny.space, recipes=replace(tiny.space.recipes, **change)))
    (tmp_path / "plan.json").write_text(plan.to_json())
    ended = run("search", "run", "--plan", tmp_path / "plan.json", "--output", tmp_path / "new")
    assert (ended.code, ended.err) == (2, f"error: {told}\n")
    assert not (tmp_path / "new").exists()


def test_a_resumed_search_computes_as_before(table: Path, tmp_path: Path) -> None:
    """Executor and retries are kept by the journal; what is given counts instead, and is kept from then on."""
    started = ("search", "run", "--plan", "tiny", "--table", table, "--output", tmp_path / "run", "--stages", "1")
    options = ("--executor", "in-process", "--retries", 3, "--gpus-per-candidate", 0.5)
    assert run(*started, *options).code == 0
    kept = SearchResult.read(tmp_path / "run").options
    assert (kept["executor"], kept["retries"], kept["gpus_per_candidate"]) == ("in-process", 3, 0.5)
    assert run("search", "resume", tmp_path / "run", "--retries", 2, "--stages", "2").code == 0
    kept = SearchResult.read(tmp_path / "run").options
    assert (kept["executor"], kept["retries"], kept["gpus_per_candidate"]) == ("in-process", 2, 0.5)
    assert not SearchResult.read(tmp_path / "run").done
    assert run("search", "resume", tmp_path / "run").code == 0
    assert SearchResult.read(tmp_path / "run").done

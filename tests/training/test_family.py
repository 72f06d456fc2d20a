"""Families: who is trained when, from whom, on what, and what is refused; ``fbnetv3 distil``."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from refusals import refusal
from runs import few_digits
from safetensors.torch import load_file
from shell import Ended, run

from fbnetv3_zoo import training
from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.arch.cost import arch_cost
from fbnetv3_zoo.recipes import RECIPES, SGD, Recipe
from fbnetv3_zoo.training import Callback, Execution, Precision, train
from fbnetv3_zoo.training import distill as family
from fbnetv3_zoo.training.data import choose_subset, digits
from fbnetv3_zoo.training.distill import Member, distil
from fbnetv3_zoo.weights.serialization import load
from fbnetv3_zoo.zoo import ARCHS

RECIPE = Recipe(1, 8, SGD(), 0.05, warmup_epochs=0, ema_decay=0.5)


@pytest.fixture(scope="module")
def archs(tiny_arch: Arch) -> tuple[Arch, Arch, Arch]:
    """A small, a large and a middle one."""
    wide = {"small": 1.0, "large": 2.0, "middle": 1.5}
    small, large, middle = (replace(tiny_arch.scaled(width=factor), name=name) for name, factor in wide.items())
    assert arch_cost(small).macs < arch_cost(middle).macs < arch_cost(large).macs
    return small, large, middle


def _trained(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """What :func:`distil` gives to :func:`train`, call by call."""
    calls: list[SimpleNamespace] = []

    def note(arch: Arch, data: Any, recipe: Recipe, folder: Path, **rest: Any) -> Any:
        calls.append(SimpleNamespace(arch=arch, data=data, recipe=recipe, folder=folder, **rest))
        return SimpleNamespace(model=f"averaged network of {folder.name}")

    monkeypatch.setattr(family, "train", note)
    return calls


def test_the_largest_first_then_all_from_it(
    archs: tuple[Arch, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls, data, names = _trained(monkeypatch), few_digits(), [arch.name for arch in archs]
    members = [Member(arch, replace(RECIPE, seed=n)) for n, arch in enumerate(archs)]
    execution, callback, begun = Execution(keep_checkpoints=7), Callback(), list[str]()
    made = distil(
        members, data, str(tmp_path), resume=True, execution=execution, callbacks=[callback], begins=begun.append
    )
    assert [call.folder for call in calls] == [tmp_path / name for name in ("teacher", *names)]
    assert [call.arch for call in calls] == [archs[1], *archs]
    assert [call.recipe.seed for call in calls] == [1, 0, 1, 2]
    assert [call.teacher for call in calls] == [None, *["averaged network of teacher"] * 3]
    for call in calls:
        assert (call.data, call.resume, call.execution, call.callbacks) == (data, True, execution, [callback])
    assert begun == ["teacher", *names]
    assert made.teacher is not None
    assert list(made.students) == names


def test_a_given_teacher_is_not_trained(
    archs: tuple[Arch, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = _trained(monkeypatch)
    made = distil([Member(arch, RECIPE) for arch in archs], few_digits(), tmp_path, teacher="teacher.onnx")
    assert [(call.folder.name, call.teacher) for call in calls] == [(arch.name, "teacher.onnx") for arch in archs]
    assert {(call.resume, call.execution, call.callbacks) for call in calls} == {(False, Execution(), ())}
    assert made.teacher is None


def test_what_is_refused(archs: tuple[Arch, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls, data = _trained(monkeypatch), few_digits()
    assert refusal(lambda: distil([], data, tmp_path)) == "there are no networks to distil; give at least one"
    twice = [Member(archs[0], RECIPE), Member(archs[1], RECIPE), Member(archs[0], RECIPE)]
    shared = "two runs would share the folder {}; give the networks different names"
    assert refusal(lambda: distil(twice, data, tmp_path)) == shared.format(tmp_path / "small")
    taken = [Member(replace(archs[0], name="teacher"), RECIPE)]
    assert refusal(lambda: distil(taken, data, tmp_path)) == shared.format(tmp_path / "teacher")
    assert calls == []


# --- the command ---


@dataclass(frozen=True)
class Home:
    """A folder with ``small.json``, ``large.json``, ``recipe.json``, ``subset.json`` and a family in ``family``."""

    folder: Path
    first: Ended

    @property
    def options(self) -> tuple[object, ...]:
        """Of the family, but for its output folder."""
        models = f"{self.folder / 'small.json'}, {self.folder / 'large.json'}"
        files = ("--recipe", self.folder / "recipe.json", "--subset", self.folder / "subset.json")
        return ("--models", models, *files)


@pytest.fixture(scope="module")
def home(archs: tuple[Arch, ...], tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    for arch in archs[:2]:
        (folder / f"{arch.name}.json").write_text(arch.to_json())
    (folder / "recipe.json").write_text(RECIPE.to_json())
    (folder / "subset.json").write_text(choose_subset(digits(), classes=2, held_out=20).to_json())
    home = Home(folder, Ended(0, "", ""))
    return Home(folder, run("distil", *home.options, "--output", folder / "family"))


def test_a_family_for_readers(home: Home) -> None:
    assert home.first.code == 0
    folder, told = home.folder / "family", home.first.out.splitlines()
    lines = [line for line in told if not line.startswith("warning: ")]
    assert sum("no better than chance" in line for line in told if line not in lines) == 3  # one epoch of few images
    heads = ("teacher (large, on labels alone)", "small (small, with the teacher)", "large (large, with the teacher)")
    for head, line, file in zip(heads, lines[::2], lines[1::2], strict=True):
        assert re.fullmatch(re.escape(head) + r": test accuracy [\d.]+% \(\d+ of \d+; 95 % interval .*\)", line)
        name = head.split()[0]
        assert file == f"  {folder / name / 'report.html'}"
        assert load(folder / name / "model.safetensors").arch.name == ("small" if name == "small" else "large")
    said = [line.split("  train")[0] for line in home.first.err.splitlines()]
    assert said == ["teacher:", "epoch   1/1", "small:", "epoch   1/1", "large:", "epoch   1/1"]


def test_every_student_learns_from_the_first_runs_averaged_network(home: Home, tmp_path: Path) -> None:
    """To the last bit as in a run of its own with that file."""
    folder, data = home.folder / "family", training.find_dataset("digits", subset=home.folder / "subset.json")
    for name in ("small", "large"):
        arch = Arch.from_json((home.folder / f"{name}.json").read_text())
        alone = train(arch, data, RECIPE, tmp_path / name, teacher=folder / "teacher" / "model.safetensors")
        found, expected = load_file(folder / name / "model.safetensors"), alone.model.state_dict()
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
        first = load_file(folder / "teacher" / "model.safetensors")
        assert not torch.equal(found["classifier.weight"], first["classifier.weight"])


def test_resumed_after_all_runs_only_measures(home: Home) -> None:
    folder = home.folder / "family"
    before = {path: path.read_bytes() for path in folder.glob("*/checkpoints/*.safetensors")}
    again = run("distil", *home.options, "--output", folder, "--resume", "--json")
    assert again.code == 0
    names = [line for line in again.err.splitlines() if not line.startswith("going on after epoch 1 of 1 (")]
    assert names == ["teacher:", "small:", "large:"]
    assert len(again.err.splitlines()) == 6
    assert {path: path.read_bytes() for path in folder.glob("*/checkpoints/*.safetensors")} == before
    found = json.loads(again.out)
    assert list(found) == ["teacher", "small", "large"]
    for name, told in found.items():
        assert told["folder"] == str(folder / name)
        assert told["last_epoch"] == json.loads((folder / name / "metrics.jsonl").read_text())
        assert f"test accuracy {told['test']['accuracy']:.2%} (" in home.first.out
    unwanted = run("distil", *home.options, "--output", folder)
    held = f"{folder / 'teacher'}: holds a run; continue it with --resume (resume=True), or give another folder"
    assert (unwanted.code, unwanted.err) == (2, f"teacher:\nerror: {held}\n")


def _given(monkeypatch: pytest.MonkeyPatch, *options: object) -> SimpleNamespace:
    given = SimpleNamespace()

    def note(members: Any, data: Any, folder: Path, **rest: Any) -> family.Family:
        vars(given).update(members=members, data=data, folder=folder, **rest)
        return family.Family(None)

    monkeypatch.setattr(family, "distil", note)
    assert run("distil", *options).code == 0
    return given


def test_own_recipes_and_changes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = _given(
        monkeypatch, "--models", "fbnetv3_a, fbnetv3_g", "--recipe", "own", "--output", tmp_path, "--epochs", 3,
        "--batch-size", 2048, "--seed", 4, "--small-images", "--teacher", "t.onnx", "--resume", "--workers", 2,
        "--precision", "bf16", "--accumulation", 2, "--keep-checkpoints", 5,
    )  # fmt: skip
    for member, name in zip(given.members, ("fbnetv3_a", "fbnetv3_g"), strict=True):
        assert member.arch == ARCHS[name].for_small_images()
        assert member.recipe == replace(RECIPES[name].for_batch_size(2048), epochs=3, seed=4)
    assert given.members[0].recipe != given.members[1].recipe
    assert (given.folder, given.teacher, given.resume) == (tmp_path, "t.onnx", True)
    assert given.execution == Execution(
        workers=2, precision=Precision.BFLOAT16, accumulation=2, keep_checkpoints=5
    )  # fmt: skip
    assert given.data.fingerprint == digits(seed=4).fingerprint


def test_one_recipe_for_all_where_none_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = _given(monkeypatch, "--models", "fbnetv3_a,fbnet_c", "--output", tmp_path)
    assert [member.recipe for member in given.members] == [RECIPES["digits"]] * 2
    assert (given.teacher, given.resume, given.execution) == (None, False, Execution())

"""``fbnetv3 recipe``: every value of the named recipes with its source, and files for ``--recipe``."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from shell import run, succeed

from fbnetv3_zoo.recipes import NAMED, RECIPES, Augmentation, CosineDecay, Recipe, find_preset, find_recipe
from fbnetv3_zoo.recipes.presets import CHOSEN


def test_list() -> None:
    lines = succeed("recipe", "list").splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [[name, named.purpose] for name, named in NAMED.items()]
    starts = {line.index(named.purpose) for line, named in zip(lines, NAMED.values(), strict=True)}
    assert len(starts) == 1
    told = json.loads(succeed("recipe", "list", "--json"))
    assert told == {name: named.purpose for name, named in NAMED.items()}


@pytest.mark.parametrize("name", NAMED)
def test_every_value_with_its_source(name: str) -> None:
    head, blank, *lines = succeed("recipe", "show", name).splitlines()
    assert (head, blank) == (f"{name}: {NAMED[name].purpose}", "")
    values = RECIPES[name].values()
    for line, (field, value) in zip(lines, values.items(), strict=True):
        assert line.split()[:2] == [field, str(value)]
        source = line.split(maxsplit=2)[2]
        assert source == NAMED[name].source_of(field)
        assert source.startswith(("this project's choice", "FBNetV3 paper (arXiv 2006.02049), "))
    (start,) = {line.index(NAMED[name].source_of(field)) for line, field in zip(lines, values, strict=True)}
    assert start > max(map(len, values))


def test_what_the_paper_states() -> None:
    lines = {line.split()[0]: line for line in succeed("recipe", "show", "fbnetv3_g").splitlines()[2:]}
    stated = {field for field, line in lines.items() if "paper" in line.split(maxsplit=2)[2]}
    assert stated >= {"epochs", "warmup_epochs", "schedule.factor", "distillation.weight", "stochastic_depth"}
    assert lines["epochs"].split()[1] == "400"
    assert lines["batch_size"].endswith(" this project's choice")


@pytest.mark.parametrize("name", NAMED)
def test_as_json_it_is_a_file_for_training(name: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(succeed("recipe", "show", name, "--json"))
    assert find_recipe(path) == RECIPES[name]
    plain = json.loads(path.read_text())
    assert {field.name for field in fields(Recipe)} <= plain.keys()
    assert {field.name for field in fields(Augmentation)} <= plain["augmentation"].keys()


def test_a_file_keeps_sources(tmp_path: Path) -> None:
    preset, path = NAMED["digits"], tmp_path / "recipe.json"
    changed = preset.changed(replace(preset.recipe, epochs=3, schedule=CosineDecay()))
    path.write_text(changed.to_json())
    read = find_preset(path)
    assert read == replace(changed, sources=read.sources)
    assert read.all_sources == changed.all_sources
    assert {field for field, source in read.sources.items() if source == CHOSEN} == {
        "epochs", "schedule", "schedule.final",
    }  # fmt: skip
    lines = {line.split()[0]: line for line in succeed("recipe", "show", path).splitlines()[2:]}
    assert lines["epochs"].split(maxsplit=2) == ["epochs", "3", "chosen for this run"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sources": {"epochs": 3}}, "recipe_preset.sources.epochs is 3; it must be text"),
        ({"sources": []}, "recipe_preset.sources is []; it must be an object"),
        ({"recipe": 3}, "recipe_preset.recipe is 3; it must be an object"),
        ({"purpose": None}, "recipe_preset.purpose is None; it must be text"),
    ],
)
def test_a_file_with_wrong_sources(change: dict[str, object], complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({**json.loads(NAMED["digits"].to_json()), **change}))
    assert run("recipe", "show", path).err.splitlines()[-1] == f"error: {path}: {complaint}"


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    recipe, path = replace(RECIPES["digits"], schedule=CosineDecay(0.01), epochs=7), tmp_path / "own.json"
    path.write_text(recipe.to_json())
    head, _, *lines = succeed("recipe", "show", path).splitlines()
    assert head == f"{path}: a recipe of your own"
    values = recipe.values()
    assert [line.split() for line in lines] == [[field, str(value)] for field, value in values.items()]
    assert values["schedule.final"] == 0.01
    assert Recipe.from_json(succeed("recipe", "show", path, "--json")) == recipe


def test_alone_it_helps() -> None:
    ended = run("recipe")
    assert (ended.code, ended.err) == (0, "")
    assert "Usage: fbnetv3 recipe [OPTIONS] COMMAND" in " ".join(ended.out.split())

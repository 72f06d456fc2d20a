"""``fbnetv3 recipe``: every value of the named recipes with its source, and files for ``--recipe``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from shell import run, succeed

from fbnetv3_zoo.recipes import NAMED, RECIPES, CosineDecay, Recipe, find_recipe


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

"""Plans of differentiable searches: the published values, files, names, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from refusals import refusal

from fbnetv3_zoo.recipes import SGD
from fbnetv3_zoo.search.space import Bound, parse_constraint
from fbnetv3_zoo.search.supernet import (
    DMASKING_PLANS,
    DNAS_PLANS,
    Absolute,
    LayerSpace,
    Power,
    Product,
    Sum,
    SupernetPlan,
    find_supernet_plan,
)
from fbnetv3_zoo.search.supernet.presets import TINY_DMASKING, TINY_DNAS, V1, V2
from fbnetv3_zoo.search.supernet.space import fixed

PAPER, TINY = DNAS_PLANS["paper"], DNAS_PLANS["tiny"]
SHIPPED = {f"{kind} {name}": (kind, name) for kind in ("dnas", "dmasking") for name in ("paper", "tiny")}
KINDS = {"dnas": DNAS_PLANS, "dmasking": DMASKING_PLANS}
every = pytest.mark.parametrize(("kind", "name"), SHIPPED.values(), ids=SHIPPED)


# What is shipped


def test_fbnets_search() -> None:
    recipe = PAPER.recipe
    assert (recipe.epochs, recipe.learning_rate, recipe.weight_decay) == (90, 0.1, 1e-4)
    assert recipe.optimizer == SGD(momentum=0.9, nesterov=False)
    assert (PAPER.choice_epoch, PAPER.choice_rate, PAPER.choice_decay, PAPER.choice_share) == (10, 0.01, 5e-4, 0.2)
    assert (PAPER.temperature, PAPER.cooling) == (5.0, 0.045)
    assert PAPER.loss == Product(alpha=0.2, beta=0.6)
    assert (PAPER.space, PAPER.target) == (V1, None)


def test_the_search_by_masks() -> None:
    """The same, but for the space, and a loss that is a sum."""
    plan = DMASKING_PLANS["paper"]
    assert replace(plan, name="dnas", space=V1, loss=PAPER.loss) == PAPER
    assert (plan.space, plan.loss) == (V2, Sum(0.2))


def test_the_plans_of_minutes() -> None:
    masked = DMASKING_PLANS["tiny"]
    assert (TINY.space, masked.space) == (TINY_DNAS, TINY_DMASKING)
    assert replace(masked, name=TINY.name, space=TINY.space) == TINY
    assert TINY.target == Bound("macs", at_most=1e6)


def test_there_are_no_others() -> None:
    assert {name: list(plans) for name, plans in KINDS.items()} == {kind: ["paper", "tiny"] for kind in KINDS}
    names = [plan.name for plans in KINDS.values() for plan in plans.values()]
    assert names == ["dnas", "dnas-tiny", "dmasking", "dmasking-tiny"]


# Files


@every
def test_plans_survive_json(kind: str, name: str, tmp_path: Path) -> None:
    plans = KINDS[kind]
    plan, path = plans[name], tmp_path / "mine.json"
    assert SupernetPlan.from_json(plan.to_json()) == plan
    path.write_text(plan.to_json())
    for source in (name, plan, path, str(path)):
        assert find_supernet_plan(source, plans) == plan


def test_every_field_survives_json() -> None:
    plan = replace(
        PAPER, name="All.fields_1-a", space=TINY_DMASKING, recipe=replace(PAPER.recipe, seed=7), cost="latency_ms",
        loss=Absolute(0.7), target=Bound("latency_ms", 2.5, 0.5), choice_epoch=3, choice_rate=0.2,
        choice_decay=0.0, choice_share=0.35, temperature=4.5, cooling=0.0, draws=0,
    )  # fmt: skip
    assert SupernetPlan.from_json(plan.to_json()) == plan
    assert all(getattr(plan, field) != getattr(PAPER, field) for field in PAPER.__dataclass_fields__)


def test_plans_that_are_not_there(tmp_path: Path) -> None:
    for source, said in (
        ("papr", "unknown plan 'papr' (did you mean 'paper'?); shipped are paper, tiny, others are files"),
        ("dnas.yaml", "unknown plan 'dnas.yaml'; shipped are paper, tiny, others are files"),
        (tmp_path / "none.json", f"{tmp_path}/none.json: no such file"),
    ):
        assert refusal(lambda s=source: find_supernet_plan(s, DNAS_PLANS)) == said


@pytest.mark.parametrize(
    ("path", "to", "said"),
    [
        (("loss", "op"), "sums", "supernet_plan.loss.op is 'sums'; choose from product, sum, absolute"),
        (("loss", "alpha"), -1, "supernet_plan.loss: Absolute.alpha is -1; it must be a number at least 0"),
        (("target", "cost"), "parameters",
         "supernet_plan: SupernetPlan.target is on parameters, the cost is macs; give both the same"),
        (("draw",), 3, "supernet_plan has an unknown key 'draw' (did you mean 'draws'?)"),
        (("cost",), "mac",
         "supernet_plan: SupernetPlan.cost is 'mac' (did you mean 'macs'?); choose from macs, parameters, latency_ms"),
        (("recipe", "epochs"), 6,
         "supernet_plan: SupernetPlan.choice_epoch is 6; it must be a whole number of at most 5"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_wrong_files(path: tuple[str, ...], to: Any, said: str, tmp_path: Path) -> None:
    data = inner = json.loads(TINY.to_json())
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    (tmp_path / "wrong.json").write_text(json.dumps(data))
    assert refusal(lambda: SupernetPlan.from_json(json.dumps(data))) == said
    assert refusal(lambda: find_supernet_plan(tmp_path / "wrong.json", DNAS_PLANS)) == f"{tmp_path}/wrong.json: {said}"


# What a plan says


def test_temperatures() -> None:
    assert PAPER.temperature_at(0) == 5.0
    assert PAPER.temperature_at(10) == pytest.approx(5 * math.exp(-0.045 * 10), rel=1e-12)
    assert PAPER.temperature_at(89) == pytest.approx(5 * math.exp(-0.045) ** 89, rel=1e-12)
    assert replace(PAPER, temperature=2.0, cooling=0.0).temperature_at(50) == 2.0


@pytest.mark.parametrize(("epochs", "begins"), [(1, 0), (2, 0), (9, 1), (30, 3), (90, 10), (900, 100)])
def test_other_numbers_of_epochs(epochs: int, begins: int) -> None:
    plan = PAPER.with_epochs(epochs)
    assert (plan.recipe.epochs, plan.choice_epoch) == (epochs, begins)
    assert plan.temperature_at(epochs) == pytest.approx(PAPER.temperature_at(90), rel=1e-12)
    changed = replace(plan, recipe=PAPER.recipe, cooling=PAPER.cooling, choice_epoch=PAPER.choice_epoch)
    assert changed == PAPER


def test_choices_always_have_an_epoch() -> None:
    late = replace(PAPER, choice_epoch=89)
    assert [late.with_epochs(epochs).choice_epoch for epochs in (1, 2, 45)] == [0, 1, 44]
    assert refusal(lambda: PAPER.with_epochs(0)) == "epochs is 0; it must be a whole number of at least 1"


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("macs<=1M", "dnas-macs-1M"), ("macs<=1234567", "dnas-macs-1234567"), ("macs<=1.5k", "dnas-macs-1.5k"),
        ("400k<=macs<=2G", "dnas-400k-macs-2G"),
    ],
)  # fmt: skip
def test_names_of_what_is_found(target: str, name: str) -> None:
    assert replace(PAPER, target=parse_constraint(target)[0]).result_name == name
    assert PAPER.result_name == "dnas"


# What is refused

ONE = LayerSpace("one", (32,), (fixed(V1.layers[0].candidates[0]),))
NAME = "use letters, digits, '.', '_' and '-', at most 100"
PLANS: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"name": ""}, f"SupernetPlan.name is ''; {NAME}"),
    "a path": ({"name": "../mine"}, f"SupernetPlan.name is '../mine'; {NAME}"),
    "two lines": ({"name": "mine\n"}, f"SupernetPlan.name is 'mine\\n'; {NAME}"),
    "no text": ({"name": 3}, f"SupernetPlan.name is 3; {NAME}"),
    "long name": ({"name": "a" * 101}, f"SupernetPlan.name is '{'a' * 101}'; {NAME}"),
    "space": ({"space": "v1"}, "SupernetPlan.space is 'v1'; it must be a LayerSpace"),
    "recipe": ({"recipe": "digits"}, "SupernetPlan.recipe is 'digits'; it must be a Recipe"),
    "loss": ({"loss": 0.2}, "SupernetPlan.loss is 0.2; it must be a Product, Sum or Absolute"),
    "cost": ({"cost": "latency"}, "SupernetPlan.cost is 'latency' (did you mean 'latency_ms'?); "
                                  "choose from macs, parameters, latency_ms"),
    "far cost": ({"cost": "joules"}, "SupernetPlan.cost is 'joules'; choose from macs, parameters, latency_ms"),
    "cost of no text": ({"cost": 3}, "SupernetPlan.cost is 3; choose from macs, parameters, latency_ms"),
    "target of no bound": ({"target": "macs<=1M"}, "SupernetPlan.target is 'macs<=1M'; it must be a Bound or None"),
    "target on another cost": ({"target": Bound("parameters", 1e6)},
                               "SupernetPlan.target is on parameters, the cost is macs; give both the same"),
    "target without an upper bound": ({"target": Bound("macs", at_least=1e6)},
                                      "SupernetPlan.target is 1M<=macs; it needs an upper bound, such as macs<=1M"),
    "distance without a target": ({"loss": Absolute()},
                                  "SupernetPlan.target is None; a loss of the distance from the target needs one"),
    "one network": ({"space": ONE}, "space one has one network; there is nothing to search"),
    "stochastic depth": ({"recipe": replace(PAPER.recipe, stochastic_depth=0.1)},
                         "SupernetPlan.recipe: supernets know no stochastic_depth and no weight_levels; "
                         "set both to 0"),
    "levels": ({"recipe": replace(PAPER.recipe, weight_levels=127)},
               "SupernetPlan.recipe: supernets know no stochastic_depth and no weight_levels; set both to 0"),
    "late choices": ({"choice_epoch": 90},
                     "SupernetPlan.choice_epoch is 90; it must be a whole number of at most 89"),
    "early choices": ({"choice_epoch": -1},
                      "SupernetPlan.choice_epoch is -1; it must be a whole number of at least 0"),
    "no rate": ({"choice_rate": 0.0}, "SupernetPlan.choice_rate is 0.0; it must be a number above 0"),
    "growth": ({"choice_decay": -1e-4}, "SupernetPlan.choice_decay is -0.0001; it must be a number at least 0"),
    "no share": ({"choice_share": 0}, "SupernetPlan.choice_share is 0; it must be a number above 0 and below 1"),
    "all of it": ({"choice_share": 1}, "SupernetPlan.choice_share is 1; it must be a number above 0 and below 1"),
    "frozen": ({"temperature": 0}, "SupernetPlan.temperature is 0; it must be a number above 0"),
    "heating": ({"cooling": -0.1}, "SupernetPlan.cooling is -0.1; it must be a number at least 0"),
    "freezing": ({"cooling": 0.1}, "SupernetPlan.cooling is 0.1: the temperature falls to 0.000682, it must stay at "
                                   "least 0.001; lower cooling or raise temperature"),
    "at once": ({"temperature": 9e-4, "cooling": 0}, "SupernetPlan.cooling is 0: the temperature falls to 0.0009, "
                                                     "it must stay at least 0.001; lower cooling or "
                                                     "raise temperature"),
    "fewer than none": ({"draws": -1}, "SupernetPlan.draws is -1; it must be a whole number of at least 0"),
    "half a draw": ({"draws": 0.5}, "SupernetPlan.draws is 0.5; it must be a whole number of at least 0"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), PLANS.values(), ids=PLANS)
def test_plans_that_are_refused(changes: dict[str, Any], said: str) -> None:
    assert refusal(lambda: replace(PAPER, **changes)) == said


def test_the_longest_name() -> None:
    assert replace(PAPER, name="a" * 100).name == "a" * 100


LOSSES: dict[str, tuple[Callable[[], object], str]] = {
    "product of nothing": (lambda: Product(alpha=0), "Product.alpha is 0; it must be a number above 0"),
    "a power of nothing": (
        lambda: Product(beta=0, power=Power.COST),
        "Product.beta is 0, and log(cost ^ 0) is 0; give a beta above 0",
    ),
    "cheap is bad": (lambda: Product(beta=-0.1), "Product.beta is -0.1; it must be a number at least 0 and at most 10"),
    "cheap is all": (lambda: Product(beta=10.5), "Product.beta is 10.5; it must be a number at least 0 and at most 10"),
    "dear is good": (lambda: Sum(-1), "Sum.alpha is -1; it must be a number at least 0"),
    "no number": (lambda: Sum(math.nan), "Sum.alpha is nan; it must be a number at least 0"),
    "away from the target": (lambda: Absolute(-1), "Absolute.alpha is -1; it must be a number at least 0"),
}


@pytest.mark.parametrize(("make", "said"), LOSSES.values(), ids=LOSSES)
def test_losses_that_are_refused(make: Callable[[], object], said: str) -> None:
    assert refusal(make) == said

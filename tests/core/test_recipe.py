"""Recipes as values: what they refuse, how they are written, and what they say of each step."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refusal

from fbnetv3_zoo.recipes import (
    RECIPES,
    SGD,
    AdamW,
    Augmentation,
    AutoAugment,
    CosineDecay,
    Distillation,
    ExponentialDecay,
    PolicyData,
    RandAugment,
    Recipe,
    RMSProp,
)
from fbnetv3_zoo.recipes.decay import warn_of_decay

PLAIN = Recipe(10, 8, SGD(), 0.5, warmup_epochs=2, schedule=ExponentialDecay(0.5))

shares = st.floats(0, 1, exclude_max=True)
upto_one = st.floats(0, 1)
positive = st.floats(0, 1e6, exclude_min=True, exclude_max=True)
amounts = st.floats(0, 1e6, exclude_max=True)
optimizers = st.one_of(
    st.builds(SGD, momentum=shares, nesterov=st.booleans()),
    st.builds(RMSProp, momentum=shares, smoothing=shares, epsilon=positive),
    st.builds(AdamW, beta1=shares, beta2=shares, epsilon=positive),
)
schedules = st.builds(ExponentialDecay, factor=positive) | st.builds(CosineDecay, final=shares)
policies = st.one_of(
    st.none(),
    st.builds(AutoAugment, found_on=st.sampled_from(PolicyData)),
    st.builds(RandAugment, operations=st.integers(1, 10**6), magnitude=st.integers(0, 30)),
)
augmentations = st.builds(
    Augmentation,
    crop_area=st.floats(0, 1, exclude_min=True),
    flip=upto_one,
    shift=st.booleans(),
    policy=policies,
    erasing=upto_one,
    mixup=amounts,
    cutmix=amounts,
    repeats=st.integers(1, 10**6),
)
distillations = st.builds(Distillation, weight=upto_one, temperature=positive, feature_weight=amounts)
recipes = st.builds(
    Recipe,
    epochs=st.integers(1, 10**6),
    batch_size=st.integers(2, 10**6),
    optimizer=optimizers,
    learning_rate=positive,
    augmentation=augmentations,
    schedule=schedules,
    warmup_epochs=st.integers(0, 100),
    weight_decay=amounts,
    clip_norm=amounts,
    ema_decay=shares,
    ema_warmup=st.booleans(),
    label_smoothing=shares,
    dropout=shares,
    stochastic_depth=shares,
    distillation=distillations,
    weight_levels=st.integers(0, 127),
    balanced=st.booleans(),
    patience=st.integers(0, 1000),
    seed=st.integers(0, 2**32 - 1),
)

WHOLE, FLAG, ABOVE_0 = "a whole number of at least 1", "True or False", "a number above 0"
SHARE, AT_LEAST_0, TO_1 = "a number at least 0 and below 1", "a number at least 0", "a number at least 0 and at most 1"
LIMIT = " and below 1000000"
REFUSED: list[tuple[Any, str, object, str]] = [
    (SGD(), "momentum", 1, SHARE),
    (SGD(), "momentum", -0.1, SHARE),
    (SGD(), "nesterov", 1, FLAG),
    (RMSProp(), "momentum", 1.0, SHARE),
    (RMSProp(), "smoothing", 1.0, SHARE),
    (RMSProp(), "smoothing", "0.9", SHARE),
    (RMSProp(), "epsilon", 0, ABOVE_0),
    (AdamW(), "beta1", 1.0, SHARE),
    (AdamW(), "beta2", math.nan, SHARE),
    (AdamW(), "epsilon", -1e-8, ABOVE_0),
    (ExponentialDecay(), "factor", 0.0, ABOVE_0),
    (ExponentialDecay(), "factor", 10**6, ABOVE_0 + LIMIT),
    (CosineDecay(), "final", 1.0, SHARE),
    (AutoAugment(), "found_on", "imagenet", "a PolicyData"),
    (RandAugment(), "operations", 0, WHOLE),
    (RandAugment(), "operations", 2.0, WHOLE),
    (RandAugment(), "magnitude", -1, "a whole number of at least 0"),
    (RandAugment(), "magnitude", 31, "a whole number of at most 30"),
    (Augmentation(), "crop_area", 0, "a number above 0 and at most 1"),
    (Augmentation(), "crop_area", 1.1, "a number above 0 and at most 1"),
    (Augmentation(), "flip", 1.1, TO_1),
    (Augmentation(), "shift", None, FLAG),
    (Augmentation(), "policy", "randaugment", "AutoAugment, RandAugment or None"),
    (Augmentation(), "erasing", -0.1, TO_1),
    (Augmentation(), "mixup", -1, AT_LEAST_0),
    (Augmentation(), "cutmix", math.inf, AT_LEAST_0 + LIMIT),
    (Augmentation(), "repeats", 0, WHOLE),
    (Distillation(), "weight", 1.01, TO_1),
    (Distillation(), "temperature", 0, ABOVE_0),
    (Distillation(), "feature_weight", -1, AT_LEAST_0),
    (PLAIN, "epochs", 0, WHOLE),
    (PLAIN, "epochs", 2.0, WHOLE),
    (PLAIN, "epochs", True, WHOLE),
    (PLAIN, "batch_size", 1, "a whole number of at least 2"),
    (PLAIN, "optimizer", "sgd", "SGD, RMSProp or AdamW"),
    (PLAIN, "learning_rate", 0, ABOVE_0),
    (PLAIN, "learning_rate", math.inf, ABOVE_0 + LIMIT),
    (PLAIN, "learning_rate", 10**6, ABOVE_0 + LIMIT),
    (PLAIN, "learning_rate", "0.1", ABOVE_0),
    (PLAIN, "augmentation", None, "an Augmentation"),
    (PLAIN, "schedule", 0.9875, "ExponentialDecay or CosineDecay"),
    (PLAIN, "warmup_epochs", -1, "a whole number of at least 0"),
    (PLAIN, "weight_decay", -1e-5, AT_LEAST_0),
    (PLAIN, "weight_decay", math.nan, AT_LEAST_0),
    (PLAIN, "clip_norm", -1, AT_LEAST_0),
    (PLAIN, "ema_decay", 1.0, SHARE),
    (PLAIN, "ema_warmup", 0, FLAG),
    (PLAIN, "label_smoothing", -0.1, SHARE),
    (PLAIN, "dropout", 1.5, SHARE),
    (PLAIN, "stochastic_depth", None, SHARE),
    (PLAIN, "distillation", 0.8, "a Distillation"),
    (PLAIN, "weight_levels", 128, "a whole number of at most 127"),
    (PLAIN, "weight_levels", True, "a whole number of at least 0"),
    (PLAIN, "balanced", 1, FLAG),
    (PLAIN, "frozen_stages", -1, "a whole number of at least 0"),
    (PLAIN, "patience", 0.5, "a whole number of at least 0"),
    (PLAIN, "seed", -1, "a whole number of at least 0"),
    (PLAIN, "seed", 2**32, "a whole number of at most 4294967295"),
    (PLAIN, "seed", 0.5, "a whole number of at least 0"),
]


@pytest.mark.parametrize(("whole", "field", "value", "remedy"), REFUSED)
def test_wrong_values_are_refused(whole: Any, field: str, value: object, remedy: str) -> None:
    told = refusal(lambda: replace(whole, **{field: value}))
    assert told == f"{type(whole).__name__}.{field} is {value!r}; it must be {remedy}"


def test_every_field_of_every_part_can_be_refused() -> None:
    kinds = {type(whole) for whole, *_ in REFUSED}
    assert kinds == {
        *(SGD, RMSProp, AdamW, ExponentialDecay, CosineDecay, AutoAugment, RandAugment, Augmentation),
        *(Distillation, Recipe),
    }
    tested = {(type(whole), field) for whole, field, *_ in REFUSED}
    assert tested == {(kind, field.name) for kind in kinds for field in fields(kind)}


@given(recipes)
def test_json_gives_an_equal_recipe_back(recipe: Recipe) -> None:
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Recipe.from_json(recipe.to_json().encode()) == recipe


def test_json_has_every_value_and_needs_those_without_default() -> None:
    recipe = replace(PLAIN, optimizer=RMSProp(0.8), augmentation=Augmentation(flip=0.5, policy=AutoAugment()))
    plain = {
        "format": "fbnetv3_zoo.recipe",
        "version": 1,
        "epochs": 10,
        "batch_size": 8,
        "optimizer": {"op": "rms_prop", "momentum": 0.8},
        "learning_rate": 0.5,
        "augmentation": {"op": "augmentation", "flip": 0.5, "policy": {"op": "auto_augment"}},
        "schedule": {"op": "exponential_decay", "factor": 0.5},
        "warmup_epochs": 2,
    }
    assert Recipe.from_json(json.dumps(plain)) == recipe
    complete = json.loads(recipe.to_json())
    assert complete["optimizer"] == {"op": "rms_prop", "momentum": 0.8, "smoothing": 0.9, "epsilon": 0.001}
    assert complete["augmentation"]["policy"] == {"op": "auto_augment", "found_on": "imagenet"}
    assert (complete["augmentation"]["mixup"], complete["seed"], complete["balanced"]) == (0.0, 0, False)
    assert complete.keys() == {"format", "version", *(field.name for field in fields(Recipe))}


def _with(part: str, data: object) -> str:
    return json.dumps({**json.loads(PLAIN.to_json()), part: data})


@pytest.mark.parametrize(
    ("part", "data", "complaint"),
    [
        ("epochs", 0, ": Recipe.epochs is 0; it must be a whole number of at least 1"),
        ("optimizer", {"op": "adam"}, ".optimizer.op is 'adam'; choose from sgd, rms_prop, adam_w"),
        (
            "optimizer",
            {"op": "sgd", "momentun": 0},
            ".optimizer has an unknown key 'momentun' (did you mean 'momentum'?)",
        ),
        (
            "optimizer",
            {"op": "sgd", "momentum": 2},
            ".optimizer: SGD.momentum is 2; it must be a number at least 0 and below 1",
        ),
        ("schedule", {"op": "step_decay"}, ".schedule.op is 'step_decay'; choose from exponential_decay, cosine_decay"),
        ("augmentation", 3, " is 3; it must be an object"),
        ("augmentation", {"policy": {"op": "mix"}}, ".policy.op is 'mix'; choose from auto_augment, rand_augment"),
        (
            "augmentation",
            {"policy": {"op": "auto_augment", "found_on": "svhn"}},
            ".policy.found_on is 'svhn'; choose from imagenet, cifar10",
        ),
    ],
)
def test_places_of_faults_are_named(part: str, data: object, complaint: str) -> None:
    place = "recipe.augmentation" if part == "augmentation" else "recipe"
    assert refusal(lambda: Recipe.from_json(_with(part, data))) == f"{place}{complaint}"


@given(recipes)
def test_values_are_every_choice_by_its_dotted_name(recipe: Recipe) -> None:
    found = recipe.values()
    for name, value in found.items():
        chosen: Any = recipe
        for part in name.split("."):
            chosen = getattr(chosen, part)
        if is_dataclass(chosen):
            assert value == type(chosen).__name__
            assert {f"{name}.{field.name}" for field in fields(chosen)} <= set(found)
        else:
            assert value == (chosen.value if isinstance(chosen, PolicyData) else chosen)
    assert {field.name for field in fields(Recipe)} == {name for name in found if "." not in name}


@pytest.mark.parametrize(
    ("epoch", "progress", "rate"),
    [
        (0, 0.25, 0.0625),
        (0, 0.5, 0.125),
        (0, 1.0, 0.25),
        (1, 0.5, 0.375),
        (1, 1.0, 0.5),  # the peak, reached by the last step of the warm-up
        (2, 0.1, 0.5),
        (2, 1.0, 0.5),  # constant within an epoch
        (3, 0.1, 0.25),
        (4, 1.0, 0.125),
        (7, 0.5, 0.015625),
    ],
)
def test_warm_up_and_exponential_decay(epoch: int, progress: float, rate: float) -> None:
    assert PLAIN.learning_rate_at(epoch, progress) == rate


@pytest.mark.parametrize(
    ("epoch", "progress", "rate"),
    [
        (0, 0.5, 0.125),
        (1, 1.0, 0.5),
        (5, 1.0, 0.5 * (0.2 + 0.8 * 0.5)),  # 4 of 8 epochs
        (3, 1.0, 0.5 * (0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2)),
        (7, 1.0, 0.5 * (0.2 + 0.8 * (1 - math.sqrt(0.5)) / 2)),
        (9, 1.0, 0.1),
        (20, 1.0, 0.1),  # a run that goes on stays there
    ],
)
def test_cosine_decay(epoch: int, progress: float, rate: float) -> None:
    recipe = replace(PLAIN, schedule=CosineDecay(0.2))
    assert recipe.learning_rate_at(epoch, progress) == pytest.approx(rate, rel=1e-12)


def test_cosine_falls_every_step() -> None:
    recipe = replace(PLAIN, schedule=CosineDecay())
    rates = [recipe.learning_rate_at(epoch, step / 7) for epoch in range(2, 10) for step in range(1, 8)]
    assert all(later < earlier for earlier, later in pairwise(rates))
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def test_learning_rate_without_warm_up_or_decay() -> None:
    assert replace(PLAIN, warmup_epochs=0).learning_rate_at(0, 0.01) == 0.5
    steady = replace(PLAIN, schedule=ExponentialDecay(1.0))
    assert {steady.learning_rate_at(epoch, 0.5) for epoch in range(2, 100)} == {0.5}


@pytest.mark.parametrize(("optimizer", "rate"), [(SGD(), 2.0), (RMSProp(), 2.0), (AdamW(), 1.0)])
def test_other_batch_sizes(optimizer: SGD | RMSProp | AdamW, rate: float) -> None:
    recipe = replace(PLAIN, optimizer=optimizer, ema_decay=0.9)
    four_times = recipe.for_batch_size(32)
    assert four_times == replace(recipe, batch_size=32, learning_rate=rate, ema_decay=0.9**4)
    back = four_times.for_batch_size(8)
    assert back.learning_rate == pytest.approx(0.5)
    assert back.ema_decay == pytest.approx(0.9)


def test_an_average_that_is_off_stays_off() -> None:
    assert PLAIN.for_batch_size(2).ema_decay == 0
    assert refusal(lambda: PLAIN.for_batch_size(1)) == "batch_size is 1; it must be a whole number of at least 2"


def test_another_number_of_epochs(caplog: pytest.LogCaptureFixture) -> None:
    """FBNetV3's proxy recipe over 400 epochs: with its own factor, the rate falls to 3e-7 of its peak."""
    proxy = RECIPES["proxy"]
    longer = proxy.for_epochs(400)
    assert isinstance(longer.schedule, ExponentialDecay)
    assert longer.schedule.factor == pytest.approx(0.963 ** (145 / 395))
    assert longer.learning_rate_at(400, 1.0) == pytest.approx(proxy.learning_rate_at(150, 1.0))
    assert replace(longer, epochs=150, schedule=proxy.schedule) == proxy
    cosine = replace(proxy, schedule=CosineDecay())
    assert cosine.for_epochs(400) == replace(cosine, epochs=400)
    warn_of_decay(proxy, 400)
    assert caplog.messages == [
        "the learning rate falls x 0.963 an epoch, made for 150 epochs: after 400 it ends at 4e-07 of its peak instead "
        "of 0.004; to fall as far, set schedule.factor to 0.9863 in a recipe file (`fbnetv3 recipe show NAME --json`)"
    ]
    warn_of_decay(proxy, 140)
    warn_of_decay(cosine, 4)
    assert len(caplog.messages) == 1
    warn_of_decay(replace(proxy, schedule=ExponentialDecay(0.001)), 390)  # both ends are 0
    assert len(caplog.messages) == 1

"""Whole differentiable searches: they repeat, survive being killed, keep to their target, and refuse what cannot be."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from forks import Job, Server
from jobs import INTERRUPTED
from refusals import refusal
from runs import checkpoints, few_digits, metadata, metrics
from safetensors.torch import load_file
from supernet_jobs import (
    PLAN,
    RECIPE,
    SPACE,
    Halt,
    Stopped,
    assert_same,
    content,
    measured,
    noting,
    search,
    serving,
)

from fbnetv3_zoo import create
from fbnetv3_zoo.arch import Activation, InvertedResidual
from fbnetv3_zoo.arch.cost import arch_cost, tabulate
from fbnetv3_zoo.arch.latency import LatencyTable
from fbnetv3_zoo.errors import Interrupted
from fbnetv3_zoo.search.space import Bound, parse_constraint
from fbnetv3_zoo.search.supernet import (
    LayerSpace,
    Product,
    SupernetEpoch,
    SupernetPlan,
    SupernetResult,
)
from fbnetv3_zoo.search.supernet.decoding import extremes
from fbnetv3_zoo.search.supernet.expected_cost import CostTables
from fbnetv3_zoo.search.supernet.space import fixed
from fbnetv3_zoo.training import Callback, Dataset, Execution, Precision, Step
from fbnetv3_zoo.training.data import SPLITS
from fbnetv3_zoo.utils.serialization import to_json
from fbnetv3_zoo.zoo import find_arch

EVERY_STEP = Execution(checkpoint_steps=1)
KILLED = [-signal.SIGKILL]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


def short(**changes: Any) -> SupernetPlan:
    """The plan in two epochs, of which the second trains the choices."""
    return replace(PLAN, **{"recipe": replace(RECIPE, epochs=2), **changes})


# The same again


def test_the_same_seed_gives_the_same_search(straight: SupernetResult, data: Dataset, tmp_path: Path) -> None:
    """Whatever the state of torch's generator, which is left as it was; workers make no difference."""
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = search(PLAN, data, tmp_path, execution=Execution(workers=1, checkpoint_steps=2))
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(tmp_path, straight.folder)
    assert content(again) == content(straight)


def test_another_seed_gives_another(straight: SupernetResult, data: Dataset, tmp_path: Path) -> None:
    other = search(replace(PLAN, recipe=replace(RECIPE, seed=1)), data, tmp_path)
    ends = [load_file(checkpoints(record.folder)[0]) for record in (straight, other)]
    moved = [name for name, tensor in ends[0].items() if not torch.equal(tensor, ends[1][name])]
    assert {name for name in ends[0] if "logits" in name or "conv.weight" in name} <= set(moved)
    assert all(
        one["train_loss"] != two["train_loss"] for one, two in zip(*map(lines_of, (straight, other)), strict=True)
    )
    assert (other.found, other.drawn) != (straight.found, straight.drawn)


def lines_of(record: SupernetResult) -> list[dict[str, Any]]:
    return metrics(record.folder)


def moments(folder: Path) -> list[dict[str, Any]]:
    """Where a search of which every step has a checkpoint is killed, life after life: what of a job is special."""
    chance, writing = random.Random(0), str(folder / "checkpoints")
    return [
        {"kill": {"delay": 0.02}},  # before the first step
        {"dies": [1, 2]},  # step 1 of the weights has a checkpoint, step 2 does not
        {"flushes": 1},
        {"reads": 7},  # while the first epoch is measured
        {"dies": [1, None]},  # between epochs
        {"dies": [2, 3]},  # in the last step of the weights
        {"dies": [2, 4]},  # in the first step of the choices
        {"flushes": 2},
        {"kill": {"steps": 0, "writing": writing}},
        {"kill": {"steps": 1, "writing": writing}},
        {"kill": {"steps": 1, "delay": chance.uniform(0, 0.03)}},  # in any step
        {"kill": {"steps": 2, "delay": chance.uniform(0, 0.03)}},
        {"dies": [4, 2]},
        {"flushes": 6},  # the epoch's line is there, its checkpoint is not
        {"reads": 30},
        {"reads": 31 + 40},  # while single networks are measured for the result
        {"flushes": 3},  # while the files of the result are written, which appear together
    ]


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.long)])
def test_killed_and_resumed_is_as_never_killed(
    every: int, straight: SupernetResult, server: Server, tmp_path: Path
) -> None:
    """Shuffling, augmentation, mixing, dropout, noise of the choices, clipping, moving average."""
    job: Job = {"folder": str(tmp_path), "execution": to_json(EVERY_STEP)}
    for moment in moments(tmp_path)[::every]:
        told = server("search", **job, **moment)
        assert told["codes"] == KILLED, (moment, told)
        if "flushes" in moment:
            halves = [*tmp_path.glob(".fbnetv3-zoo-*/new/*"), *tmp_path.glob("checkpoints/.fbnetv3-zoo-*/new/*")]
            assert halves, moment
    results = ("plan.json", "mixed-macs-160k.arch.json", "found.json")
    assert not any((tmp_path / name).exists() for name in results)
    last = server("search", **job)
    assert last == {"codes": [0], "lines": [[]], "first": 0.0, "last": 0.0}  # all steps and epochs had been taken
    assert_same(tmp_path, straight.folder)


@pytest.mark.parametrize("moment", [(1, 3), (3, 4)], ids=str)
def test_resumed_with_few_checkpoints(
    moment: tuple[int, int | None], straight: SupernetResult, data: Dataset, tmp_path: Path
) -> None:
    """Of every second step; what was done after it is done again."""
    with pytest.raises(Stopped):
        search(PLAN, data, tmp_path, execution=Execution(checkpoint_steps=2), callbacks=[Halt(*moment)])
    found = search(PLAN, data, tmp_path, resume=True)
    assert_same(tmp_path, straight.folder)
    assert content(found) == content(straight)


@pytest.mark.parametrize("step", [2, 5], ids=["weights", "choices"])
def test_sigterm_ends_it_after_a_checkpoint(step: int, straight: SupernetResult, data: Dataset, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    halt = Halt(2, step, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted) as caught:
        search(PLAN, data, tmp_path, callbacks=[halt])
    assert str(caught.value) == f"ended by SIGTERM after step {step} of epoch 2; continue with --resume"
    assert signal.getsignal(signal.SIGTERM) is before
    progress = metadata(checkpoints(tmp_path)[0])["progress"]
    assert (progress["epoch"], progress["step"]) == (1, step)
    search(PLAN, data, tmp_path, resume=True)
    assert_same(tmp_path, straight.folder)


def test_sigterm_to_a_process(server: Server, tmp_path: Path) -> None:
    """Sent to the whole group while an image is read for the first time to validate; a step of epoch 2 ends it."""
    job: Job = {"folder": str(tmp_path), "execution": to_json(Execution(workers=1))}
    told = server("search", terminated=True, **job)
    assert told["codes"] == [INTERRUPTED], told
    assert told["lines"][0][-1] == "interrupted: ended by SIGTERM after step 1 of epoch 2; continue with --resume"


def test_a_finished_search_is_only_told_again(straight: SupernetResult, data: Dataset) -> None:
    before = {path: path.read_bytes() for path in straight.folder.rglob("*") if path.is_file()}
    again = search(PLAN, data, straight.folder, resume=True, callbacks=[_Deaf()])
    assert again == straight
    assert {path: path.read_bytes() for path in straight.folder.rglob("*") if path.is_file()} == before


class _Deaf(Callback):
    def on_step(self, step: Step) -> None:
        raise Stopped

    def on_epoch(self, epoch: SupernetEpoch) -> None:
        raise Stopped


# What is found


def test_what_is_found(straight: SupernetResult) -> None:
    assert straight.epochs[-1].likeliest > 160_000  # so that the target has something to change
    everything = [straight.found, *straight.drawn]
    assert len({one.code for one in everything}) == len(everything) == 6
    for one in everything:
        assert arch_cost(SPACE.arch(one.code, "network")).macs == one.cost <= 160_000
        assert round(31 * one.accuracy, 9) in range(32)
        chances = [p[n] for p, n in zip(straight.epochs[-1].probabilities, one.code, strict=True)]
        assert one.log_probability == pytest.approx(float(torch.tensor(chances, dtype=torch.float64).log().sum()))
    assert straight.found.log_probability == max(one.log_probability for one in everything)


def test_its_network_is_a_file(straight: SupernetResult) -> None:
    path = straight.folder / "mixed-macs-160k.arch.json"
    assert [file.name for file in straight.files] == [path.name, "plan.json", "metrics.jsonl", "found.json"]
    arch = find_arch(path)
    assert arch == straight.arch == SPACE.arch(straight.found.code, "mixed-macs-160k")
    images = torch.zeros(2, 3, arch.resolution, arch.resolution)
    assert create(str(path)).eval()(images).shape == (2, 10)


def test_without_target_or_draws(straight: SupernetResult, data: Dataset, tmp_path: Path) -> None:
    """The most probable network of all."""
    found = search(short(target=None, draws=0), data, tmp_path)
    assert found.drawn == ()
    assert found.found.code == found.epochs[-1].code
    assert found.found.cost == found.epochs[-1].likeliest
    assert found.arch.name == "mixed"


def test_as_many_draws_as_there_are_networks(straight: SupernetResult, data: Dataset, tmp_path: Path) -> None:
    codes = np.array(list(np.ndindex(*(len(d) for d in SPACE.dimensions))))
    good = codes[CostTables.of(SPACE, "macs").of_codes(codes) <= 160_000]
    found = search(short(draws=len(good) - 1), data, tmp_path)
    assert len(found.drawn) == len(good) - 1 == 8
    assert {found.found.code, *(one.code for one in found.drawn)} == set(map(tuple, good.tolist()))


def test_a_target_from_both_sides(data: Dataset, tmp_path: Path) -> None:
    found = search(short(target=Bound("macs", 600_000, 480_000)), data, tmp_path)
    assert found.epochs[-1].likeliest < 480_000
    assert 480_000 <= found.found.cost <= 600_000
    assert len(found.drawn) == 5
    assert all(480_000 <= one.cost <= 600_000 for one in found.drawn)
    assert found.found.log_probability > max(one.log_probability for one in found.drawn)


def test_a_target_too_narrow_for_the_most_probable_network(data: Dataset, tmp_path: Path) -> None:
    """That of all that are dear enough is too dear; so one that was drawn is taken."""
    found = search(short(target=Bound("macs", 600_000, 543_000)), data, tmp_path)
    assert 543_000 <= found.found.cost <= 600_000
    beyond = [one for one in found.drawn if one.cost > 600_000]
    assert len(beyond) == 1
    assert beyond[0].log_probability > found.found.log_probability


def test_epochs(straight: SupernetResult, data: Dataset) -> None:
    first, *rest = straight.epochs
    assert [epoch.epoch for epoch in straight.epochs] == [1, 2, 3, 4]
    assert [epoch.temperature for epoch in straight.epochs] == [PLAN.temperature_at(n) for n in range(4)]
    assert [epoch.learning_rate for epoch in straight.epochs] == [RECIPE.learning_rate_at(n, 1.0) for n in range(4)]
    tables = CostTables.of(SPACE, "macs")
    for epoch in straight.epochs:
        assert [len(of) for of in epoch.probabilities] == [len(d) for d in SPACE.dimensions]
        assert [sum(of) for of in epoch.probabilities] == pytest.approx([1.0] * len(SPACE.dimensions))
        assert [of[n] for of, n in zip(epoch.probabilities, epoch.code, strict=True)] == list(
            map(max, epoch.probabilities)
        )
        assert extremes(tables)[0][0] < epoch.cost < extremes(tables)[1][0]
        assert round(31 * epoch.validation_top1, 9) in range(32)
        assert 1.5 < epoch.train_loss < 2.5
        assert 1.5 < epoch.validation_loss < 3
    assert all(max(of) == pytest.approx(1 / len(of)) for of in first.probabilities)  # only weights were trained
    assert all(max(of) > 1 / len(of) + 0.001 for epoch in rest for of in epoch.probabilities)
    assert straight.data == data.name


def test_latency_is_a_cost(data: Dataset, tmp_path: Path) -> None:
    table = measured(SPACE)
    low, high = (cost for cost, _ in extremes(CostTables.of(SPACE, "latency_ms", table)))
    target = Bound("latency_ms", (low + high) / 2)
    plan = short(cost="latency_ms", target=target, loss=Product())
    found = search(plan, data, tmp_path, latency=table)
    for one in (found.found, *found.drawn):
        (expected,) = table(tabulate([SPACE.arch(one.code, "network")]))
        assert one.cost == pytest.approx(expected, rel=1e-12)
        assert one.cost <= target.at_most
    other = measured(SPACE, seed=1)
    said = f"{tmp_path}: the run was begun with another latency table; give another folder"
    assert refusal(lambda: search(plan, data, tmp_path, latency=other, resume=True)) == said
    again = LatencyTable.from_json(table.to_json())
    assert search(plan, data, tmp_path, latency=again, resume=True) == found


def test_weights_and_choices_see_different_images(data: Dataset, tmp_path: Path) -> None:
    """All of them together, each once an epoch."""
    read: list[str] = []
    steps: dict[tuple[int, int], list[str]] = {}

    class Dividing(Callback):
        def on_step(self, step: Step) -> None:
            assert step.steps == (3 if step.epoch == 1 else 5)
            steps[step.epoch, step.step] = read[:]
            read.clear()

        def on_epoch(self, epoch: SupernetEpoch) -> None:
            assert sorted(read) == sorted(example.key for example in data["validation"])
            read.clear()

    noted = noting(data, lambda example: read.append(example.key))
    search(replace(PLAN, draws=0), noted, tmp_path, callbacks=[Dividing()])
    seen = {epoch: ([], []) for epoch in range(1, 5)}  # type: dict[int, tuple[list[str], list[str]]]
    for (epoch, step), keys in steps.items():
        assert len(keys) == 18
        seen[epoch][step > 3].extend(keys)
    everything = sorted(example.key for example in data["train"])
    assert [len(for_choices) for _, for_choices in seen.values()] == [0, 36, 36, 36]
    for weights, for_choices in list(seen.values())[1:]:
        assert sorted(weights + for_choices) == everything
    assert {tuple(sorted(weights)) for weights, _ in seen.values()} == {tuple(sorted(seen[1][0]))}
    assert seen[2][1] != seen[3][1]  # shuffled


# What is refused


def refused_at_once(folder: Path, plan: SupernetPlan, data: Dataset, **rest: Any) -> str:
    """What is said before there is a folder."""
    said = refusal(lambda: search(plan, data, folder / "new", **rest))
    assert not (folder / "new").exists()
    return said


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("macs<=84.8k", "target macs<=84.8k: the cheapest network of space mixed has 84,896 macs; raise the target, or "
                        "widen the space"),
        ("1M<=macs<=2M", "target 1M<=macs<=2M: the dearest network of space mixed has 962,912 macs; lower the target, "
                         "or widen the space"),
    ],
)  # fmt: skip
def test_targets_out_of_reach(target: str, said: str, data: Dataset, tmp_path: Path) -> None:
    assert refused_at_once(tmp_path, replace(PLAN, target=parse_constraint(target)[0]), data) == said


def test_the_nearest_target_is_not_refused(data: Dataset, tmp_path: Path) -> None:
    found = search(short(target=Bound("macs", 84_896)), data, tmp_path)
    assert (found.found.cost, found.drawn) == (84_896, ())


def test_arguments_of_other_types_are_refused(data: Dataset, tmp_path: Path) -> None:
    for plan, images, callbacks, said in (
        ("tiny_dnas", data, (), "plan is 'tiny_dnas'; it must be a SupernetPlan"),
        (PLAN, "digits", (), "data is 'digits'; it must be a Dataset, as find_dataset() and as_dataset() give"),
        (PLAN, data, None, "callbacks is None; it must be a list of instances of fbnetv3_zoo.training.Callback"),
    ):
        assert refused_at_once(tmp_path, plan, images, callbacks=callbacks) == said  # type: ignore[arg-type]


def test_executions_that_are_refused(data: Dataset, tmp_path: Path) -> None:
    said = refused_at_once(tmp_path, PLAN, data, execution=Execution(precision=Precision.FLOAT16))
    assert said == "supernets are trained in float32 or bf16, not fp16"
    said = refused_at_once(tmp_path, PLAN, data, execution=Execution(accumulation=10))
    assert said.startswith("batches of 18 images cannot be divided into 1 processes x 10 parts")


def test_gradient_checkpointing_changes_nothing(straight: SupernetResult, data: Dataset, tmp_path: Path) -> None:
    """Not a bit, statistics of norms included: noise and dropout of a layer are the same when it is repeated."""
    found = search(PLAN, data, tmp_path, execution=Execution(gradient_checkpointing=True))
    assert_same(straight.folder, found.folder)


def test_bf16(straight: SupernetResult, data: Dataset, tmp_path: Path) -> None:
    found = search(short(), data, tmp_path, execution=Execution(precision=Precision.BFLOAT16))
    assert found.epochs[0].train_loss == pytest.approx(straight.epochs[0].train_loss, rel=0.02)
    assert found.epochs[0].train_loss != straight.epochs[0].train_loss


def test_data_that_does_not_fit(data: Dataset, tmp_path: Path) -> None:
    def some(train: int, validation: int) -> Dataset:
        splits = {"train": data["train"][:train], "validation": data["validation"][:validation], "test": ()}
        return replace(data, splits=MappingProxyType(splits))  # type: ignore[arg-type]

    for few in (some(3, 1), some(4, 0)):
        said = f"{data.name}: needs at least 4 images to train on and 1 to validate on"
        assert refused_at_once(tmp_path, PLAN, few) == said
    grouped = InvertedResidual(3, 24, 2, 1, 8, Activation.HARD_SWISH, groups_1x1=3)
    space = LayerSpace("grouped", (32,), (fixed(grouped), *SPACE.stages[1:]), num_classes=10)
    said = refused_at_once(tmp_path, replace(PLAN, space=space, target=None), data)  # digits have one channel
    assert said == "network: stage 0, block 0: in_channels 1 is not divisible by groups_1x1 = 3; change one of them"


def test_latency_needs_a_table(data: Dataset, tmp_path: Path) -> None:
    assert refused_at_once(tmp_path, replace(PLAN, cost="latency_ms", target=None), data) == (
        "latency_ms needs a table of measured blocks; make one with `fbnetv3 search lut` and give it"
    )


def test_folders_of_other_searches(straight: SupernetResult, data: Dataset) -> None:
    folder = straight.folder
    said = f"{folder}: holds a run; continue it with --resume (resume=True), or give another folder"
    assert refusal(lambda: search(PLAN, data, folder)) == said
    other, others = replace(PLAN, draws=4), few_digits(seed=1)
    differs = ", ".join(f"{split} images: {len(data[split])} then, as many others now" for split in SPLITS)
    told, changed = f"data ({differs})", f"plan (draws: {PLAN.draws} then, 4 now)"
    for plan, images, named in ((other, data, changed), (PLAN, others, told), (other, others, f"{changed} and {told}")):
        said = f"{folder}: the run was begun with another {named}; give another folder"
        assert refusal(lambda p=plan, d=images: search(p, d, folder, resume=True)) == said


@pytest.mark.parametrize("rate", [9e5, 0.999e6])
def test_a_loss_that_explodes(rate: float, data: Dataset, tmp_path: Path) -> None:
    recipe = replace(RECIPE, learning_rate=rate, warmup_epochs=0, clip_norm=0.0)
    said = refusal(lambda: search(replace(PLAN, recipe=recipe), data, tmp_path))
    assert said.startswith("loss is ")
    file = tmp_path / "failed-batch-0.safetensors"
    assert f" in epoch 1, step 2, at learning rate {rate:.4g}; lower learning_rate ({rate:g}); " in said
    assert said.endswith(f"the batch is in {file}")
    assert load_file(file)["images.0"].shape == (18, 1, 32, 32)

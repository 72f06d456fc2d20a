"""What fine-tuning on a few images needs: frozen stages, balanced classes, an early end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from refusals import refusal
from runs import PLAIN, RECIPE, Stopped, Stopper, assert_same, train

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.recipes import Recipe
from fbnetv3_zoo.training import Dataset, Execution
from fbnetv3_zoo.training.losses import class_weights_of, labels_loss
from fbnetv3_zoo.weights.serialization import save
from fbnetv3_zoo.zoo import ARCHS

STILL = replace(PLAIN, epochs=6, learning_rate=1e-9, warmup_epochs=0, patience=2)


def test_frozen_stages_keep_weights_and_statistics(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    arch, recipe = replace(tiny_arch, in_channels=1), replace(RECIPE, epochs=1, frozen_stages=2)
    start = FBNet(arch, generator=torch.Generator().manual_seed(1))
    save(start, tmp_path / "start.safetensors")
    run = train(arch, data, recipe, tmp_path / "run", pretrained=tmp_path / "start.safetensors")
    before = start.state_dict()
    changed = {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert {name.split(".")[1] for name in changed if name.startswith("stages")} == {"2"}
    assert "classifier.weight" in changed


def test_freezing_a_network(tiny_arch: Arch) -> None:
    network = FBNet(tiny_arch)
    network.freeze(2)
    assert [stage.training for stage in network.train().stages] == [False, False, True]
    assert {name.split(".")[1] for name, p in network.named_parameters() if not p.requires_grad} == {"0", "1"}
    network.freeze(0)
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert refusal(lambda: network.freeze(4)) == "stages to freeze is 4; it must be a whole number of at most 3"


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_balanced_loss(smoothing: float) -> None:
    """Every class has the same share in the sum over the training images, and probabilities may be targets."""
    counts = np.array([30, 6, 0, 4])
    weights = class_weights_of(counts)
    assert (weights * torch.from_numpy(counts)).tolist() == pytest.approx([40 / 3, 40 / 3, 0, 40 / 3])
    logits, labels = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 1, 3] * 2)
    targets = (1 - smoothing) * F.one_hot(labels, 4) + smoothing / 4
    expected = -(targets * weights[labels, None] * logits.log_softmax(1)).sum() / 8
    for given in (labels, F.one_hot(labels, 4).float()):
        assert float(labels_loss(logits, given, smoothing, weights)) == pytest.approx(float(expected), rel=1e-6)
        halves = [labels_loss(logits[part], given[part], smoothing, weights) for part in (slice(4), slice(4, 8))]
        assert float(sum(halves) / 2) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("counts", [(990, 10), (400, 4, 4), (500, 500, 0)])
def test_balanced_classes_are_told_apart_with_smoothing(counts: tuple[int, ...]) -> None:
    """Where images of a class can be told, the best answer for them is that class, however rare others are."""
    weights = class_weights_of(np.array(counts))
    for label in np.flatnonzero(counts):
        logits = torch.zeros(1, len(counts), requires_grad=True)
        optimizer = torch.optim.SGD([logits], 0.5)
        for _ in range(200):
            optimizer.zero_grad()
            (labels_loss(logits, torch.tensor([label]), 0.1, weights) / weights[label]).backward()
            optimizer.step()
        assert float(logits.softmax(1)[0, label].detach()) == pytest.approx(0.9 + 0.1 / len(counts), abs=0.01)


def test_balanced_training_differs_where_classes_do(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    uneven = replace(
        data, splits={**data.splits, "train": [e for e in data["train"] if e.label < 5] * 2 + [*data["train"]]}
    )
    plain, balanced = (
        train(tiny_arch, uneven, replace(PLAIN, epochs=1, balanced=on), tmp_path / str(on)) for on in (False, True)
    )
    assert balanced.epochs[0].train_loss != plain.epochs[0].train_loss


def test_a_run_ends_early(tiny_arch: Arch, data: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = train(tiny_arch, data, STILL, tmp_path)
    scores = [epoch.validation_top1 for epoch in run.epochs]
    assert 3 <= len(scores) < 6
    assert max(scores[-2:]) <= max(scores[:-2])
    assert caplog.messages[-1] == (
        f"ended after epoch {len(scores)} of 6: validation accuracy has not risen for 2 epochs"
    )
    again = train(tiny_arch, data, STILL, tmp_path, resume=True)
    assert again.epochs == run.epochs


def test_a_run_that_would_end_early_is_interrupted(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    run = train(tiny_arch, data, STILL, tmp_path / "straight")
    with pytest.raises(Stopped):
        train(
            tiny_arch,
            data,
            STILL,
            tmp_path / "again",
            callbacks=[Stopper(2, 1)],
            execution=Execution(checkpoint_steps=1),
        )
    train(tiny_arch, data, STILL, tmp_path / "again", resume=True)
    assert_same(tmp_path / "again", run.folder)


def test_int8_changes_all_stages() -> None:
    said = refusal(lambda: replace(PLAIN, frozen_stages=1, weight_levels=63))
    assert said == "Recipe.frozen_stages: training for int8 (weight_levels) changes all stages; set one to 0"


def test_random_stages_are_not_frozen(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    recipe: Recipe = replace(PLAIN, frozen_stages=1)
    told = "frozen_stages: random weights should not be frozen; start from weights, or set it to 0"
    assert refusal(lambda: train(tiny_arch, data, recipe, tmp_path)) == told


def test_a_network_is_named(data: Dataset, tmp_path: Path) -> None:
    recipe = replace(PLAIN, epochs=1)
    run = train("fbnetv3_nano", data, recipe, tmp_path / "by name")
    value = train(replace(ARCHS["fbnetv3_nano"], in_channels=1), data, recipe, tmp_path / "by value")
    assert run.model.arch == value.model.arch
    assert run.epochs[0].train_loss == value.epochs[0].train_loss

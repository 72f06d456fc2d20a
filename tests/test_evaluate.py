"""Accuracy: against counting by hand, PyTorch's cross entropy and scikit-learn's top-k accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import top_k_accuracy_score

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.training.data import Example
from fbnetv3_zoo.training.evaluate import Evaluation, Floats, evaluate

ONE_PIXEL = Preprocess(1, 1, mean=(0.0,), std=(1 / 255,))  # gives an image's only pixel as it is


def _measure(logits: npt.ArrayLike, labels: Sequence[int], *, batch_size: int = 64) -> Evaluation:
    """``evaluate`` on images whose only pixel is the number of their row in ``logits``."""
    table = np.asarray(logits, dtype=np.float32)
    examples = [
        Example(lambda n=n: Image.new("L", (1, 1), n), label)  # type: ignore[misc]
        for n, label in enumerate(labels)
    ]

    def predict(images: Floats) -> Floats:
        assert images.dtype == np.float32
        assert images.shape[1:] == (1, 1, 1)
        assert len(images) <= batch_size
        return table[np.rint(images[:, 0, 0, 0]).astype(int)]

    return evaluate(predict, examples, ONE_PIXEL, batch_size=batch_size)


def _record(right: int, total: int) -> Evaluation:
    """A record of two classes in which the first ``right`` of ``total`` images of class 0 are answered right."""
    predicted = (np.arange(total) >= right).astype(np.int64)
    zeros = np.zeros(total)
    return Evaluation(zeros.astype(np.int64), predicted, predicted, zeros, zeros, np.arange(total), (), 2.0, ("a", "b"))


@pytest.mark.parametrize("batch_size", [1, 7, 64, 200, 1000])
def test_against_torch_and_scikit_learn(batch_size: int) -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 12)).astype(np.float32) * 3, rng.integers(0, 12, 200)
    found = _measure(logits, labels.tolist(), batch_size=batch_size)
    given = {"y_true": labels, "y_score": logits, "labels": range(12), "normalize": False}
    assert found.top1 == top_k_accuracy_score(k=1, **given)
    assert found.top5 == top_k_accuracy_score(k=5, **given)
    assert found.total == 200
    assert found.fraction == found.top1 / 200
    expected = F.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(labels)).item()
    assert found.loss == pytest.approx(expected, rel=1e-9)


@given(st.data())
def test_against_counting_by_hand(data: st.DataObject) -> None:
    """Few different values, so that many are equal: an image counts when fewer than k others are as good or better."""
    classes, images = data.draw(st.integers(2, 8)), data.draw(st.integers(1, 9))
    row = st.lists(st.integers(-2, 2), min_size=classes, max_size=classes)
    logits = data.draw(st.lists(row, min_size=images, max_size=images))
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=images, max_size=images))
    ranks = [
        sum(value >= scores[label] for other, value in enumerate(scores) if other != label)
        for scores, label in zip(logits, labels, strict=True)
    ]
    losses = [
        math.log(sum(math.exp(v) for v in scores)) - scores[label] for scores, label in zip(logits, labels, strict=True)
    ]
    found = _measure(logits, labels, batch_size=4)
    assert (found.top1, found.top5, found.total) == (ranks.count(0), sum(rank < 5 for rank in ranks), images)
    assert found.loss == pytest.approx(sum(losses) / images, rel=1e-9)


def test_ties_count_against_the_network() -> None:
    assert _measure([[0.0] * 10], [0]).top1 == 0  # a network that always says the same knows nothing
    assert _measure([[0.0] * 10], [0]).top5 == 0
    assert _measure([[1, 1, 0]], [0]).top1 == 0
    assert _measure([[1, 1, 1, 1, 1, 0, 0]], [4]).top5 == 1
    assert _measure([[1, 1, 1, 1, 1, 1, 0]], [4]).top5 == 0


def test_what_is_no_number_is_never_right() -> None:
    nan, inf = math.nan, math.inf
    found = _measure([[nan] * 10, [0] + [nan] * 9, [nan] + [0] * 9, [inf, inf] + [0] * 8], [0, 0, 0, 0])
    assert (found.top1, found.top5) == (0, 1)
    assert math.isnan(found.loss)


def test_fewer_than_five_classes() -> None:
    found = _measure([[3, 1, 0], [3, 1, 0]], [0, 2])
    assert (found.top1, found.top5) == (1, 2)


def test_large_logits_do_not_overflow() -> None:
    assert _measure([[1e4, -1e4]], [0]).loss == 0
    assert _measure([[1e4, -1e4]], [1]).loss == 20_000


@pytest.mark.parametrize("right", [0, 1, 7, 182, 359, 364])
def test_the_interval_is_wilsons(right: int) -> None:
    n, p, z = 364, right / 364, 1.959963984540054
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = _record(right, n).interval
    assert low == pytest.approx(centre - half, abs=1e-12)
    assert high == pytest.approx(centre + half, abs=1e-12)
    assert 0 <= low <= p <= high <= 1


def test_as_text() -> None:
    assert str(_record(355, 364)) == "97.53% (355 of 364; 95 % interval 95.37% to 98.69%)"


def test_nothing_to_evaluate_on() -> None:
    with pytest.raises(ZooError) as caught:
        _measure([], [])
    assert str(caught.value) == "there are no images to evaluate on in this split"


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batches_of_nothing(batch_size: int) -> None:
    with pytest.raises(ZooError) as caught:
        _measure([[0.0, 1.0]], [0], batch_size=batch_size)
    assert str(caught.value) == f"batch_size is {batch_size}; it must be a whole number of at least 1"

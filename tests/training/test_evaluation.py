"""Evaluation: against counting by hand, PyTorch's cross entropy and scikit-learn's top-k accuracy; in processes."""

from __future__ import annotations

import gc
import json
import math
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from forks import Server
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from refusals import refusal
from scipy.stats import binomtest
from sklearn.metrics import top_k_accuracy_score

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.training.data import Example, Examples
from fbnetv3_zoo.training.data.arrays import ArrayImages
from fbnetv3_zoo.training.data.dataset import Names
from fbnetv3_zoo.training.data.gathered import gathered
from fbnetv3_zoo.training.distributed import World, join
from fbnetv3_zoo.training.evaluation import Evaluation, Floats, evaluate
from fbnetv3_zoo.training.evaluation_images import EvaluationImages
from fbnetv3_zoo.training.execution import SKIPPING, OnBadImage

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


@pytest.mark.parametrize(("right", "total"), [(0, 364), (1, 364), (182, 364), (359, 364), (364, 364), (0, 1), (1, 1)])
def test_the_interval_is_wilsons(right: int, total: int) -> None:
    expected = binomtest(right, total).proportion_ci(0.95, method="wilson")
    low, high = _record(right, total).interval
    assert low == pytest.approx(expected.low, abs=1e-12)
    assert high == pytest.approx(expected.high, abs=1e-12)
    assert 0 <= low <= right / total <= high <= 1
    assert _record(right, total).per_class[0].interval == (low, high)


def test_as_text() -> None:
    assert str(_record(355, 364)) == "97.53% (355 of 364; 95 % interval 95.37% to 98.69%)"


def test_nothing_to_evaluate_on() -> None:
    with pytest.raises(ZooError) as caught:
        _measure([], [])
    assert str(caught.value) == "this split has no images to evaluate on; choose another split"


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batches_of_nothing(batch_size: int) -> None:
    with pytest.raises(ZooError) as caught:
        _measure([[0.0, 1.0]], [0], batch_size=batch_size)
    assert str(caught.value) == f"batch_size is {batch_size}; it must be a whole number of at least 1"


def _pictures(count: int, *, bad: Sequence[int] = ()) -> list[Example]:
    """Gray images of one pixel, named ``0.png`` and so on, image n of class n % 3; those of ``bad`` cannot be read."""

    def read(n: int) -> Image.Image:
        if n in bad:
            raise ZooError(f"{n}.png: cannot be read as an image (truncated)")
        return Image.new("L", (1, 1), n)

    return [Example(partial(read, n), n % 3, key=f"{n}.png") for n in range(count)]


def _answers(images: Floats) -> Floats:
    """Logits of three classes that depend on the pixel alone: image 0 is right, 1 and 2 are taken for 0 and so on."""
    pixels = np.rint(images[:, 0, 0, 0])
    return np.stack([np.cos(pixels), np.sin(pixels), pixels / 50], axis=1).astype(np.float32)


def _equal(one: Evaluation, other: Evaluation) -> bool:
    """Whether two records say the same, but for the time it took."""
    arrays = ("labels", "predicted", "ranks", "losses", "probabilities", "positions")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays) and (
        (one.skipped, one.class_names) == (other.skipped, other.class_names)
    )


def test_the_record_image_by_image() -> None:
    found = _measure([[3, 1, 0], [1, 0, 3], [0, 2, 2], [0, 0, 0]], [0, 0, 1, 2])
    assert found.labels.tolist() == [0, 0, 1, 2]
    assert found.predicted.tolist() == [0, 2, 2, 0]  # a tie is answered with another class than the true one
    assert found.ranks.tolist() == [0, 1, 1, 2]
    assert found.positions.tolist() == [0, 1, 2, 3]
    softmax = torch.tensor([[3, 1, 0], [1, 0, 3], [0, 2, 2], [0, 0, 0]]).double().softmax(1)
    assert np.exp(-found.losses) == pytest.approx(softmax[range(4), [0, 0, 1, 2]].numpy(), rel=1e-12)
    assert found.probabilities == pytest.approx(softmax[range(4), [0, 2, 2, 0]].numpy(), rel=1e-12)
    assert found.class_names == ("0", "1", "2")
    assert found.wrong.tolist() == [1, 3, 2]
    assert found.answers.tolist() == [[0, 0, 1], [0, 2, 1], [1, 2, 1], [2, 0, 1]]
    assert [(row.name, row.images, row.right, row.fraction) for row in found.per_class] == [
        ("0", 2, 1, 0.5),
        ("1", 1, 0, 0.0),
        ("2", 1, 0, 0.0),
    ]
    assert {array.dtype for array in (found.labels, found.predicted, found.ranks, found.positions)} == {np.dtype("i8")}


@given(st.data())
def test_what_is_derived_agrees(data: st.DataObject) -> None:
    value = st.sampled_from([-math.inf, -1.0, 0.0, 1.0, math.inf, math.nan])
    classes, images = data.draw(st.integers(2, 4)), data.draw(st.integers(1, 6))
    logits = data.draw(st.lists(st.lists(value, min_size=classes, max_size=classes), min_size=images, max_size=images))
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=images, max_size=images))
    found = _measure(logits, labels)
    assert ((found.ranks == 0) == (found.predicted == found.labels)).all()
    true, answered, counts = found.answers.T
    assert counts[true == answered].sum() == sum(row.right for row in found.per_class) == found.top1
    assert counts.sum() == sum(row.images for row in found.per_class) == images
    assert (np.diff(counts) <= 0).all()
    assert len({*zip(true.tolist(), answered.tolist(), strict=True)}) == len(counts)
    assert sorted(found.wrong) == np.flatnonzero(found.predicted != found.labels).tolist()
    json.loads(json.dumps(found.summary(), allow_nan=False))


def test_the_costliest_mistakes_come_first() -> None:
    nan = math.nan
    found = _measure([[0, 1], [0, 5], [nan, 0], [9, 0], [0, 9], [nan, nan]], [0, 0, 0, 0, 0, 0])
    assert found.wrong.tolist() == [2, 5, 4, 1, 0]


def test_classes_without_images() -> None:
    empty = _measure([[1, 0]], [0]).per_class[1]
    assert (empty.name, empty.images, empty.right, empty.fraction, empty.interval) == ("1", 0, 0, None, (0.0, 1.0))


def test_the_summary() -> None:
    assert _record(355, 364).summary() == {
        "accuracy": 355 / 364,
        "interval": list(_record(355, 364).interval),
        "top5_accuracy": 1.0,
        "top5_interval": list(_record(364, 364).interval),
        "top1": 355,
        "top5": 364,
        "total": 364,
        "loss": 0.0,
        "skipped": 0,
        "seconds": 2.0,
        "images_per_second": 182.0,
    }
    assert _measure([[math.nan, 0]], [0]).summary()["loss"] is None


def test_names_of_classes() -> None:
    examples = _pictures(3)
    assert evaluate(_answers, examples, ONE_PIXEL, class_names=["a", "b", "c"]).class_names == ("a", "b", "c")
    names = refusal(lambda: evaluate(_answers, examples, ONE_PIXEL, class_names=["a", "b"]))
    assert names == "class_names has 2 names, but the network has 3 classes"


def test_labels_that_the_network_does_not_know() -> None:
    told = refusal(lambda: evaluate(lambda images: _answers(images)[:, :2], _pictures(3), ONE_PIXEL))
    assert told == "an image has label 2, but the network has 2 classes"


def test_images_that_cannot_be_read() -> None:
    examples = _pictures(7, bad=[2, 5])
    told = refusal(lambda: evaluate(_answers, examples, ONE_PIXEL))
    assert told == (f"2.png: cannot be read as an image (truncated); {SKIPPING} such images are left out and counted")
    whole = evaluate(_answers, _pictures(7), ONE_PIXEL)
    for batch_size in (1, 2, 64):
        found = evaluate(_answers, examples, ONE_PIXEL, batch_size=batch_size, on_bad_image=OnBadImage.SKIP)
        assert (found.skipped, found.total, found.summary()["skipped"]) == (("2.png", "5.png"), 5, 2)
        assert found.positions.tolist() == [0, 1, 3, 4, 6]
        assert found.losses.tolist() == whole.losses[[0, 1, 3, 4, 6]].tolist()


def test_no_image_can_be_read() -> None:
    examples = _pictures(3, bad=[0, 1, 2])
    told = refusal(lambda: evaluate(_answers, examples, ONE_PIXEL, on_bad_image=OnBadImage.SKIP))
    assert told == "none of the 3 images can be read; the first: 0.png: cannot be read as an image (truncated)"


def test_images_that_cannot_be_prepared() -> None:
    thin = Example(lambda: Image.new("L", (1, 40_000)), 0, key="thin.png")
    preprocess = Preprocess(100, 100, mean=(0.0,), std=(1.0,))
    found = evaluate(_answers, [*_pictures(2), thin], preprocess, on_bad_image=OnBadImage.SKIP)
    assert found.skipped == ("thin.png",)
    assert refusal(lambda: evaluate(_answers, [thin], preprocess)).startswith("thin.png: an image of 1 x 40000 pixels")


@pytest.mark.parametrize("bad", [[], [0, 9]])
def test_processes_that_prepare_images_change_nothing(bad: list[int]) -> None:
    examples = _pictures(23, bad=bad)
    generator = torch.random.get_rng_state()
    alone, helped = (
        evaluate(_answers, examples, ONE_PIXEL, batch_size=5, workers=workers, on_bad_image=OnBadImage.SKIP)
        for workers in (0, 2)
    )
    assert _equal(alone, helped)
    assert alone.skipped == tuple(f"{n}.png" for n in bad)
    assert torch.equal(torch.random.get_rng_state(), generator)


def _in_memory(count: int, *shape: int) -> Examples:
    pixels = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    rows = np.random.default_rng(1).permutation(count)
    return Examples(Names.of(map(str, range(count))), rows % 5, rows, ArrayImages(pixels))


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("side", [8, 12])
@pytest.mark.parametrize(("shape", "channels"), [((8, 8), 1), ((8, 8, 3), 3), ((9, 11, 3), 3)])
def test_images_in_memory_are_prepared_a_batch_at_once(
    shape: tuple[int, ...], channels: int, side: int, rank: int
) -> None:
    """Equal to the bit to what is read image by image, in their own size and resized, as often as it is asked for."""
    preprocess = Preprocess(side, side, mean=(0.3, 0.4, 0.5)[:channels], std=(0.21, 0.22, 0.23)[:channels])
    examples, world = _in_memory(33, *shape), World(rank, 2)
    assert gathered(examples, preprocess) is not None
    at_once = EvaluationImages(examples, preprocess, batch_size=7, world=world)
    one_by_one = EvaluationImages(tuple(examples), preprocess, batch_size=7, world=world)
    for _ in range(2):
        for found, expected in zip(at_once, one_by_one, strict=True):
            assert found.images is not None
            assert expected.images is not None
            assert torch.equal(found.images, expected.images)
            assert found.images.dtype == torch.float32
            assert found.positions.tolist() == expected.positions.tolist()
            assert found.labels.tolist() == expected.labels.tolist()


def test_images_that_are_no_array_of_the_right_form_are_not_gathered() -> None:
    gray = Preprocess(8, 8, mean=(0.5,), std=(0.5,))
    assert gathered(tuple(_in_memory(5, 8, 8)), gray) is None
    assert gathered(_in_memory(5, 8, 8, 3), gray) is None
    assert gathered(_in_memory(300, 2, 2), replace(gray, resize=1000, resolution=1000)) is None  # too many bytes


def test_a_bad_image_met_by_another_process() -> None:
    examples = _pictures(7, bad=[2])
    alone, helped = (refusal(lambda w=w: evaluate(_answers, examples, ONE_PIXEL, workers=w)) for w in (0, 2))  # type: ignore[misc]
    assert alone == helped


def test_a_process_that_dies() -> None:
    examples = [Example(lambda: os.kill(os.getpid(), signal.SIGKILL), 0)]  # type: ignore[arg-type,return-value]
    told = refusal(lambda: evaluate(_answers, examples, ONE_PIXEL, workers=1))
    assert re.fullmatch(r"a worker process that loads images has died \(DataLoader worker \(pid.*\) .*\)", told)


def test_workers_are_shut_down_by_the_garbage_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of their queues closes its pipe once, however late its thread does it."""
    close = Connection.close

    def late(connection: Connection) -> None:
        time.sleep(0.4)
        close(connection)

    monkeypatch.setattr(Connection, "close", late)
    before = set(threading.enumerate())
    with pytest.raises(ZooError) as caught:
        evaluate(_answers, _pictures(7, bad=[2]), ONE_PIXEL, workers=2)
    cycle: list[object] = [caught]
    cycle.append(cycle)
    del caught, cycle
    gc.collect()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)  # what one of them raises fails the test


def test_wrong_arguments() -> None:
    examples = _pictures(3)
    for workers in (-1, 0.5):
        told = refusal(lambda w=workers: evaluate(_answers, examples, ONE_PIXEL, workers=w))  # type: ignore[misc]
        assert told == f"workers is {workers}; it must be a whole number of at least 0"
    told = refusal(lambda: evaluate(_answers, examples, ONE_PIXEL, on_bad_image="skip"))  # type: ignore[arg-type]
    assert told == "on_bad_image is 'skip'; it must be OnBadImage.RAISE or OnBadImage.SKIP"


def together(tell: Callable[[str], None]) -> None:
    """What each of two processes does: evaluate sets of images together and alone."""
    equal, refusals = [], []
    with join() as world:
        for count, bad in ((1, []), (2, []), (7, []), (8, []), (33, [4, 7, 8]), (2, [1]), (3, [0, 2])):
            examples = _pictures(count, bad=bad)
            one, every = (
                evaluate(_answers, examples, ONE_PIXEL, batch_size=5, on_bad_image=OnBadImage.SKIP, world=group)
                for group in (World(), world)
            )
            equal.append(_equal(every, one) and every.total == count - len(bad))
        for bad in ([5], [2, 5]):
            refusals.append(refusal(lambda bad=bad: evaluate(_answers, _pictures(7, bad=bad), ONE_PIXEL, world=world)))  # type: ignore[misc]
        tell(json.dumps([equal, refusals, world.size]))


def test_two_processes_give_the_record_of_one(server: Server) -> None:
    """Odd and even numbers of images, fewer images than processes, bad ones in either process's share."""
    done = server("call", size=2, file=__file__, function=together.__name__)
    assert done["codes"] == [0, 0], done
    remedy = f"cannot be read as an image (truncated); {SKIPPING} such images are left out and counted"
    refusals = [f"5.png: {remedy}", f"2.png: {remedy}"]
    assert [json.loads(lines[-1]) for lines in done["lines"]] == [[[True] * 7, refusals, 2]] * 2


def test_chance_is_the_commonest_class() -> None:
    """What always answering it would get; a result has to be above that by its whole interval."""
    labels = [0] * 30 + [1] * 70
    always = _measure([[0, 1]] * 100, labels)
    assert (always.commonest, always.fraction, always.beats_chance) == (("1", 0.7), 0.7, False)
    better = _measure([[1, 0]] * 30 + [[0, 1]] * 70, labels)
    assert (better.commonest, better.fraction, better.beats_chance) == (("1", 0.7), 1.0, True)


def test_a_record_of_very_many_classes_is_small() -> None:
    """A table of all classes by all classes would take 49 GiB."""
    classes, images = 81_313, 40
    logits = np.zeros((images, classes), dtype=np.float32)
    logits[range(images), range(images)] = 1
    found = _measure(logits.tolist(), [*range(images - 1), classes - 1])
    assert len(found.per_class) == classes
    assert found.answers.shape == (images, 3)
    assert found.answers[found.answers[:, 0] != found.answers[:, 1]].tolist() == [[classes - 1, images - 1, 1]]

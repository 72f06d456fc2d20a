"""Images held out for validation, and settings for another size of images."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from refusals import refusal

from fbnetv3_zoo.detection import CocoData, RCNNSettings
from fbnetv3_zoo.detection.data.coco import AnnotatedImage
from fbnetv3_zoo.detection.data.hold_out import hold_out


def image(number: int, *labels: int, crowd: bool = False) -> AnnotatedImage:
    boxes = np.tile(np.array([[0, 0, 4, 4]], np.float32), (len(labels), 1))
    crowds = np.full(len(labels), crowd)
    return AnnotatedImage(Path(f"{number}.png"), number, 8, 8, boxes, np.array(labels, np.int64), crowds)


def data(*images: AnnotatedImage) -> CocoData:
    return CocoData("boxes", images, ("cat", "dog", "owl"), (1, 2, 3), ("a fault",))


def numbers(part: CocoData) -> list[int]:
    return [sample.image_id for sample in part.samples]


def test_an_image_that_is_listed_twice_is_on_one_side() -> None:
    twice = data(*(image(n, 1 + n % 3) for n in range(8)), *(replace(image(n, 2), image_id=8 + n) for n in range(8)))
    kept, held = hold_out(twice, 0.3, 0)
    assert held.samples
    assert not {sample.path for sample in kept.samples} & {sample.path for sample in held.samples}
    assert refusal(lambda: hold_out(twice, 0.3, -1)) == "seed is -1; it must be a whole number of at least 0"


def test_a_share_of_the_images_is_held_out_by_seed() -> None:
    many = data(*(image(n, 1 + n % 3) for n in range(20)), *(image(n) for n in range(20, 30)))
    kept, held = hold_out(many, 0.2, 0)
    assert sorted(numbers(kept) + numbers(held)) == [*range(30)]
    assert (sum(n < 20 for n in numbers(held)), sum(n >= 20 for n in numbers(held))) == (4, 2)
    assert numbers(kept) == sorted(numbers(kept))
    assert numbers(hold_out(many, 0.2, 0)[1]) == numbers(held)
    assert {tuple(numbers(hold_out(many, 0.2, seed)[1])) for seed in range(5)} != {tuple(numbers(held))}
    assert (kept.faults, held.faults) == (("a fault",), ())  # which are told once
    assert len(hold_out(many, 0.5, 0)[1]) == 15


@pytest.mark.parametrize("seed", range(5))
def test_every_class_keeps_an_image_to_train_on(seed: int) -> None:
    kept, held = hold_out(data(image(0, 1, 2), image(1, 1), image(2, 1), image(3, 3, 3), image(4, 1)), 0.99, seed)
    assert {0, 3} <= {*numbers(kept)}
    assert len(held) == 3


def test_too_few_images_are_refused() -> None:
    two = data(image(0, 1), image(1, 1), image(2), image(3, 1, crowd=True))
    assert refusal(partial(hold_out, two, 0.2, 0)) == (
        "boxes: 2 images with objects, and at least 3 are needed to hold one out for validation; annotate more images, "
        "or give annotations of others by --validation"
    )
    apart = data(image(0, 1), image(1, 2), image(2, 3))
    assert "each has the only objects of a class" in refusal(partial(hold_out, apart, 0.2, 0))


def test_settings_for_another_size() -> None:
    small = RCNNSettings().of_size(160)
    assert (small.min_size, small.max_size, small.anchor_sizes) == (160, 267, (6, 13, 19, 26, 32))
    assert (small.proposals_in_training, small.regions_in_training) == (300, 64)
    assert RCNNSettings().of_size(400).regions_in_training == 128
    assert RCNNSettings().of_size(1600).regions_in_training == 512
    assert RCNNSettings().of_size(800) == RCNNSettings()
    few = replace(RCNNSettings(), regions_in_training=16)
    assert few.of_size(80).regions_in_training == 16
    assert min(RCNNSettings(anchor_sizes=(1,)).of_size(32).anchor_sizes) == 1

"""Holds out images for validation, if there are no annotations of others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fbnetv3_zoo.errors import ZooError, check_whole, counted

from .coco import AnnotatedImage, CocoData

_LEAST = 3


def hold_out(data: CocoData, share: float, seed: int) -> tuple[CocoData, CocoData]:
    """The images of ``data`` to train on, and those to validate on, drawn by ``seed``; both in their order.

    About ``share`` of the images with objects is held out, at least one, and the same of those without. An image with
    the last objects of a class stays in training, and one that is listed several times is on one side. Raises
    :class:`ZooError` if too few images have objects.
    """
    listed: dict[Path, list[int]] = {}
    for n, sample in enumerate(data.samples):
        listed.setdefault(sample.path, []).append(n)
    images = list(listed.values())
    with_objects = [image for image in images if not all(data.samples[n].crowd.all() for n in image)]
    without = [image for image in images if all(data.samples[n].crowd.all() for n in image)]
    advice = "annotate more images, or give annotations of others by --validation"
    if len(with_objects) < _LEAST:
        few = counted(len(with_objects), "image")
        raise ZooError(
            f"{data.name}: {few} with objects, and at least {_LEAST} are needed to hold one out for "
            f"validation; {advice}"
        )
    check_whole("seed", seed, at_least=0)
    rng = np.random.default_rng([seed, len(data)])
    drawn = [with_objects[n] for n in rng.permutation(len(with_objects))]
    count = min(max(1, round(share * len(drawn))), len(drawn) - 1)
    held = _spared(data.samples, drawn, count)
    if not held:
        raise ZooError(
            f"{data.name}: no image can be held out for validation, since each has the only objects of a "
            f"class; {advice}"
        )
    held |= {number for n in rng.permutation(len(without))[: round(share * len(without))] for number in without[n]}
    kept, judged = (
        tuple(sample for n, sample in enumerate(data.samples) if (n in held) is inside) for inside in (False, True)
    )
    return replace(data, samples=kept), replace(data, samples=judged, faults=())


def _spared(samples: Sequence[AnnotatedImage], drawn: Sequence[Sequence[int]], count: int) -> set[int]:
    """The samples of the first ``count`` images of ``drawn`` without which every class still has an image."""
    labels_of = [set[int]().union(*(_labels(samples[n]) for n in image)) for image in drawn]
    images = Counter(label for labels in labels_of for label in labels)
    held: list[Sequence[int]] = []
    for image, labels in zip(drawn, labels_of, strict=True):
        if len(held) < count and all(images[label] > 1 for label in labels):
            images.subtract(labels)
            held.append(image)
    return {n for image in held for n in image}


def _labels(sample: AnnotatedImage) -> set[int]:
    """The labels of the objects of an image, except crowds."""
    return {int(label) for label in sample.labels[~sample.crowd]}

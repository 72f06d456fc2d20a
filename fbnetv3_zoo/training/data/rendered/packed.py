"""The images of a dataset, decoded and resized once, in one file."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ....errors import ZooError, check_member, check_whole, first_few, printable
from ....preprocess import Preprocess
from ....utils.in_order import in_order
from ....utils.log import LOG
from ...execution import SKIPPING, OnBadImage
from ..dataset import SPLITS, Dataset, Example
from .dataset_file import LARGEST_IMAGES, LARGEST_SIDE, DatasetFile, Pixels

_THREADS, _AHEAD = 4, 64


def packed(data: Dataset, *, side: int, on_bad_image: OnBadImage = OnBadImage.RAISE) -> DatasetFile:
    """All images of ``data``, ``side`` pixels high and wide: the shorter side is resized, the middle is kept.

    They are gray if ``data`` has one mean, otherwise RGB. Splits, labels, keys, means and deviations stay. Each split
    is a group of its own. Raises :class:`ZooError` if an image cannot be read, unless those are to be skipped, and if
    all together have more than 805 MB.
    """
    check_whole("side", side, at_least=1, at_most=LARGEST_SIDE)
    check_member("on_bad_image", on_bad_image, OnBadImage)
    channels = len(data.mean)
    if (count := sum(len(data[split]) for split in SPLITS)) * channels * side**2 > LARGEST_IMAGES:
        fitting = int((LARGEST_IMAGES / (count * channels)) ** 0.5)
        raise ZooError(
            f"{count:,} images of {side} x {side} pixels have more than {LARGEST_IMAGES >> 20:,} MiB; choose at most "
            f"{fitting} pixels, or a part of the data (fbnetv3 subset)"
        )
    crop, skipped = Preprocess(side, side, mean=data.mean, std=data.std).crop, list[str]()

    def pixels(example: Example) -> Pixels | None:
        try:
            return np.asarray(crop(example.read()))
        except ZooError as error:
            if on_bad_image is OnBadImage.RAISE:
                raise ZooError(f"{error}; {SKIPPING} such images are left out") from None
            return None

    images, labels, keys, sizes = list[Pixels](), list[int](), list[str](), list[int]()
    with ThreadPoolExecutor(_THREADS, "decoding") as pool:
        for split in SPLITS:
            before = len(images)
            for example, found in zip(data[split], in_order(pool, pixels, data[split], ahead=_AHEAD), strict=True):
                if found is None:
                    skipped.append(example.key)
                    continue
                images.append(found)
                labels.append(example.label)
                keys.append(printable(example.key))
            sizes.append(len(images) - before)
    if not images:
        raise ZooError(f"{data.name}: none of its {count:,} images can be read")
    if skipped:
        LOG.warning("left out %d images that cannot be read: %s", len(skipped), first_few(skipped))
    present: list[str] = [split for split, size in zip(SPLITS, sizes, strict=True) if size]
    groups = np.repeat(np.arange(len(present)), [size for size in sizes if size])
    train, validation, test = sizes
    return DatasetFile(
        printable(data.name), tuple(map(printable, data.class_names)), tuple(present), data.mean, data.std,
        np.stack(images), np.array(labels), groups, (train, validation, test), tuple(keys),
        json.dumps({"packed from": data.fingerprint, "side": side}),
    )  # fmt: skip

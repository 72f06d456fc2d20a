"""CIFAR-10 and CIFAR-100 from their published files, in the binary and in the Python version.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ...errors import ZooError
from ...images.listing import unreadable
from ...utils.paths import is_file
from .arrays import ArrayReader
from .dataset import Dataset, Example, Examples, Integers, Names, Split
from .random_split import check_seed
from .safe_pickle import read_plain

Bytes = npt.NDArray[np.uint8]
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True, slots=True)
class CifarLayout:
    """The files of one version: their names, and the folder to which the published archive unpacks.

    In a binary file, each image is preceded by ``label_bytes`` bytes, of which the last is the label; in the Python
    version there are none, and ``labels`` and ``names`` are keys. ``train_images`` and ``test_images`` are the total
    numbers of images.
    """

    title: str
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    num_classes: int
    label_bytes: int = 0
    labels: str = ""
    names: str = ""
    train_images: int = 50_000
    test_images: int = 10_000


_BATCHES = tuple(f"data_batch_{n}" for n in range(1, 6))
LAYOUTS = (
    CifarLayout(
        "CIFAR-10", "cifar-10-batches-bin", tuple(f"{name}.bin" for name in _BATCHES), "test_batch.bin",
        "batches.meta.txt", 10, label_bytes=1,
    ),
    CifarLayout(
        "CIFAR-10", "cifar-10-batches-py", _BATCHES, "test_batch", "batches.meta", 10, labels="labels",
        names="label_names",
    ),
    CifarLayout(
        "CIFAR-100", "cifar-100-binary", ("train.bin",), "test.bin", "fine_label_names.txt", 100, label_bytes=2,
    ),
    CifarLayout(
        "CIFAR-100", "cifar-100-python", ("train",), "test", "meta", 100, labels="fine_labels",
        names="fine_label_names",
    ),
)  # fmt: skip

# Mean and standard deviation of the red, green and blue values of all 50,000 training images, as commonly published.
STATISTICS = {
    "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "CIFAR-100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def find_cifar(root: Path) -> tuple[CifarLayout, Path] | None:
    """The layout and folder of CIFAR in ``root`` or its published subfolder; None if it is not there.

    Two of the first training file, the test file and the file of names are enough, so that an error can name the third.
    """
    versions: dict[str, tuple[CifarLayout, Path]] = {}
    for layout in LAYOUTS:
        for folder in (root, root / layout.folder):
            files = (layout.train[0], layout.test, layout.meta)
            if sum(is_file(folder / name) for name in files) >= 2:
                versions.setdefault(layout.title, (layout, folder))
    if len(versions) > 1:
        folders = " and ".join(str(folder) for _, folder in versions.values())
        raise ZooError(f"{root}: has {' and '.join(versions)}; give one of {folders}")
    return next(iter(versions.values()), None)


def cifar(path: str | Path, *, seed: int = 0, val_split: float | None = None) -> Dataset:
    """CIFAR-10 or CIFAR-100 (fine labels) in the folder ``path``, 32 x 32 RGB.

    The share ``val_split`` (None: a tenth) of the training images of each class, drawn by ``seed``, is for validation;
    the test images are as published. Raises :class:`ZooError`, which names the file, if one is missing or damaged.
    """
    check_seed(seed)
    version = find_cifar(Path(path))
    if version is None:
        raise ZooError(f"{path}: has neither CIFAR-10 nor CIFAR-100; unpack the published archive there")
    layout, folder = version
    count = layout.train_images // len(layout.train)
    parts = [_read(folder / name, layout, count) for name in layout.train]
    train = np.concatenate([pixels for pixels, _ in parts]), np.concatenate([labels for _, labels in parts])
    rest, held_out = _hold_out(train[1], seed, 0.1 if val_split is None else val_split)
    mean, std = STATISTICS[layout.title]
    splits: dict[Split, Sequence[Example]] = {
        "train": _examples("train", *train).at(rest),
        "validation": _examples("train", *train).at(held_out),
        "test": _examples("test", *_read(folder / layout.test, layout, layout.test_images)),
    }
    names = _class_names(folder / layout.meta, layout)
    return Dataset(layout.title, names, mean, std, 1.0, MappingProxyType(splits), str(folder))


@dataclass(frozen=True, slots=True, eq=False)
class _Pictures:
    """Images as published: 1,024 values each of red, green and blue, row by row."""

    pixels: Bytes
    shape = (32, 32, 3)

    def gather(self, rows: Integers) -> Bytes:
        images: Bytes = self.pixels[rows].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return images

    def reader(self, row: int, key: str) -> ArrayReader:
        return ArrayReader(np.ascontiguousarray(self.pixels[row].reshape(3, 32, 32).transpose(1, 2, 0)))


def _examples(split: str, pixels: Bytes, labels: Integers) -> Examples:
    keys = Names.of(f"{split}/{n}" for n in range(len(labels)))
    return Examples(keys, labels, np.arange(len(labels)), _Pictures(pixels))


def _hold_out(labels: Integers, seed: int, share: float) -> tuple[Integers, Integers]:
    """Indices for training and validation, each in order."""
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), dtype=bool)
    for label in range(int(labels.max()) + 1):
        members = np.flatnonzero(labels == label)
        held_out[rng.permutation(members)[len(members) - int(len(members) * share + 1e-9) :]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _read(path: Path, layout: CifarLayout, count: int) -> tuple[Bytes, Integers]:
    """Pixels (count, 3072) and labels (count,) of one file."""
    pixels, labels = (_read_binary if layout.label_bytes else _read_python)(path, layout, count)
    if (most := int(labels.max())) >= layout.num_classes or int(labels.min()) < 0:
        raise _damaged(path, f"has the label {most if most >= layout.num_classes else int(labels.min())}")
    return pixels, labels


def _read_binary(path: Path, layout: CifarLayout, count: int) -> tuple[Bytes, Integers]:
    record = layout.label_bytes + _PIXELS
    data = _contents(path, at_most=count * record)
    if len(data) != count * record:
        raise _damaged(path, f"has {len(data):,} bytes, not {count * record:,}")
    records = np.frombuffer(data, np.uint8).reshape(count, record)
    return records[:, layout.label_bytes :], records[:, layout.label_bytes - 1].astype(np.int32)


def _read_python(path: Path, layout: CifarLayout, count: int) -> tuple[Bytes, Integers]:
    data = _pickled(path, at_most=count * (_PIXELS + 1000) * 2, most_opcodes=8 * count + 10_000)  # with images' names
    pixels, labels = data.get("data"), data.get(layout.labels)
    if not isinstance(pixels, np.ndarray) or pixels.shape != (count, _PIXELS):
        raise _damaged(path, f"has no array 'data' of {count:,} x {_PIXELS:,} bytes")
    if not isinstance(labels, list) or len(labels) != count or not all(type(label) is int for label in labels):
        raise _damaged(path, f"has no list {layout.labels!r} of {count:,} whole numbers")
    if any(not -(2**31) <= label < 2**31 for label in labels):
        raise _damaged(path, f"has no list {layout.labels!r} of {count:,} whole numbers")
    return pixels, np.array(labels, dtype=np.int32)


def _class_names(path: Path, layout: CifarLayout) -> tuple[str, ...]:
    if layout.label_bytes:
        text = _contents(path, at_most=100_000).decode("utf-8-sig", "replace")
        names = [line.strip() for line in text.splitlines() if line.strip()]
    else:
        listed = _pickled(path, at_most=100_000, most_opcodes=10_000).get(layout.names)
        names = [_text(name) for name in listed] if isinstance(listed, list) else []
    if len(set(names)) != layout.num_classes or len(names) != layout.num_classes or "" in names:
        raise _damaged(path, f"does not name {layout.num_classes} classes")
    return tuple(names)


def _text(name: object) -> str:
    if isinstance(name, bytes):
        return name.decode("utf-8", "replace")
    return name if isinstance(name, str) else ""


def _pickled(path: Path, *, at_most: int, most_opcodes: int) -> dict[str, object]:
    try:
        value = read_plain(_contents(path, at_most=at_most), most_opcodes=most_opcodes)
    except ZooError as error:
        if str(error).startswith(str(path)):
            raise
        raise _damaged(path, str(error)) from None
    if type(value) is not dict:
        raise _damaged(path, "is not a dict")
    return value


def _contents(path: Path, *, at_most: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > at_most:
            raise _damaged(path, f"has {size:,} bytes, more than {at_most:,}")
        if not path.is_file():  # a pipe may never end
            raise _damaged(path, "is not a regular file")
        with path.open("rb") as file:
            return file.read(at_most)
    except OSError as error:
        raise unreadable(path, error) from None


def _damaged(path: Path, problem: str) -> ZooError:
    return ZooError(f"{path}: {problem}; it is damaged, unpack the published archive again")

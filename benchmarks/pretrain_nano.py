"""Train the weights that the package brings, ``fbnetv3_nano.zoo_v1``, on characters, emoji and parts of photographs.

    python benchmarks/pretrain_nano.py letters.safetensors emoji.safetensors --output runs/nano

The two files are those of ``benchmarks/make_letters.py``. Capital letters and digits, three groups of emoji, and parts
of photographs that scikit-learn, scikit-image and matplotlib bring; other characters, other emoji and other photographs
are left for measuring what the weights are good for (``benchmarks/fine_tuning.py``). Last, the weights are halved in
precision into one file.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import matplotlib
import numpy as np
import numpy.typing as npt
import skimage.data
import sklearn.datasets
from PIL import Image

from fbnetv3_zoo.preprocess import IMAGENET_MEAN, IMAGENET_STD
from fbnetv3_zoo.recipes import SGD, Augmentation, CosineDecay, Recipe
from fbnetv3_zoo.training import Dataset, Execution, find_dataset, train
from fbnetv3_zoo.training.data import SPLITS, Example, Split
from fbnetv3_zoo.training.data.arrays import ArrayReader
from fbnetv3_zoo.weights.serialization import open_weights, write_tensors
from fbnetv3_zoo.zoo.nano import FBNETV3_NANO

CHARACTERS = "ABDEFGHIJLMNQRT23456789"
EMOJI = ("People Body", "Smileys Emotion", "Symbols")
PHOTOS = (
    "cell", "color", "hubble_deep_field", "ihc", "microaneurysms", "moon", "motorcycle_left", "page", "retina", "text",
)  # fmt: skip
PARTS: dict[Split, int] = {"train": 500, "validation": 50, "test": 50}
RECIPE = Recipe(
    epochs=24, batch_size=128, optimizer=SGD(), learning_rate=0.2,
    augmentation=Augmentation(crop_area=0.5, shift=True, erasing=0.2), schedule=CosineDecay(0.01), warmup_epochs=2,
    weight_decay=5e-5, ema_decay=0.999, label_smoothing=0.1,
)  # fmt: skip
NAME = "fbnetv3_nano.zoo_v1.safetensors"
Pixels = npt.NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("letters", type=Path)
    parser.add_argument("emoji", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    data = joined(
        {"character": find_dataset(options.letters), "emoji": find_dataset(options.emoji)},
        {"character": CHARACTERS, "emoji": EMOJI},
    )
    run = train(FBNETV3_NANO, data, RECIPE, options.output, resume=options.resume, execution=Execution())
    print(f"test accuracy {run.test}")
    path = options.output / NAME
    halve(options.output / "model.safetensors", path)
    print(path, hashlib.sha256(path.read_bytes()).hexdigest())


def halve(source: Path, path: Path) -> None:
    """Write the model in half precision, with the name and license that it is published under."""
    file = open_weights(source)
    named = replace(file.own_description, weights=NAME.removesuffix(".safetensors"), license="Apache-2.0")
    tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in file.tensors.items()}
    write_tensors(path, tensors, named.to_metadata())


def joined(sources: dict[str, Dataset], chosen: dict[str, Sequence[str]]) -> Dataset:
    """The chosen classes of all sources and the photographs, in color, as one dataset."""
    rng = np.random.default_rng(0)
    names: list[str] = []
    splits: dict[Split, list[Example]] = {split: [] for split in SPLITS}
    for kind, data in sources.items():
        labels = {data.class_names.index(name): len(names) + n for n, name in enumerate(chosen[kind])}
        names += [f"{kind} {name}" for name in chosen[kind]]
        for split in SPLITS:
            for example in data[split]:
                if example.label in labels:
                    pixels = colored(np.asarray(example.read()), rng)
                    splits[split].append(Example(ArrayReader(pixels), labels[example.label], f"{kind}/{example.key}"))
    for name, picture in photographs():
        for split, count in PARTS.items():
            for n, part in enumerate(parts(picture, count, rng)):
                splits[split].append(Example(ArrayReader(part), len(names), f"{name}/{split}/{n}"))
        names.append(f"photograph {name}")
    filled = {split: tuple(examples) for split, examples in splits.items()}
    return Dataset("nano", tuple(names), IMAGENET_MEAN, IMAGENET_STD, 1.0, MappingProxyType(filled))


def colored(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Gray ink, half of the time in two random colors of different brightness, otherwise black and white."""
    if pixels.ndim == 3:
        return pixels
    ink = pixels[..., None] / 255
    back, front = np.array([255.0] * 3), np.array([0.0] * 3)
    if rng.random() < 0.5:
        back, front = rng.uniform(0, 255, 3), rng.uniform(0, 255, 3)
        while abs(back.mean() - front.mean()) < 80:
            back, front = rng.uniform(0, 255, 3), rng.uniform(0, 255, 3)
    elif rng.random() < 0.5:
        back, front = front, back
    return np.rint(back + (front - back) * ink).astype(np.uint8)


def photographs() -> Iterator[tuple[str, Image.Image]]:
    """Photographs that packages bring, with their names."""
    for name in PHOTOS:
        found = skimage.data.stereo_motorcycle()[0] if name == "motorcycle_left" else None
        path = Path(skimage.data.__file__).parent
        file = next(iter(sorted(path.glob(f"{name}.*"))))
        yield name, Image.fromarray(found) if found is not None else Image.open(file).convert("RGB")
    for name in ("china", "flower"):
        yield name, Image.fromarray(sklearn.datasets.load_sample_image(f"{name}.jpg"))
    yield "grace_hopper", Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")


def parts(picture: Image.Image, count: int, rng: np.random.Generator) -> Iterator[Pixels]:
    """Square parts, a tenth to half of the shorter side long, at 32 pixels."""
    for _ in range(count):
        side = int(rng.integers(min(picture.size) // 10, min(picture.size) // 2))
        left, top = (int(rng.integers(length - side + 1)) for length in picture.size)
        part = picture.crop((left, top, left + side, top + side)).resize((32, 32))
        yield np.asarray(part.convert("RGB"))


if __name__ == "__main__":
    main()

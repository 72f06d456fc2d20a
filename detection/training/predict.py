"""Running a detector on images and datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.models.detection import FasterRCNN

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.images.pixels import to_eight_bits
from fbnetv3_zoo.training.distributed import World
from fbnetv3_zoo.training.loader import unless_worker_dies, worker_count, worker_init

from ..data.coco import AnnotatedImage, open_image
from ..data.faults import Unreadable
from ..data.fitting import check_scalable
from .evaluate import Detections

Find = Callable[[Tensor], Detections]
"""The detections in an image (see :func:`to_pixels`). Raises :class:`ZooError` if it is too thin to be scaled."""


def finder(model: FasterRCNN, *, device: torch.device = torch.device("cpu")) -> Find:
    """``model`` as a function of one image, in evaluation mode."""
    return partial(_found, model, device)


def _found(model: FasterRCNN, device: torch.device, image: Tensor) -> Detections:
    check_scalable(model.transform.min_size[-1], model.transform.max_size, image)
    model.eval()
    with torch.inference_mode():
        (output,) = model([image.to(device)])
    return Detections(*(output[key].cpu().numpy() for key in ("boxes", "scores", "labels")))


def detect(
    model: FasterRCNN, images: Iterable[Tensor], *, device: torch.device = torch.device("cpu")
) -> Iterator[Detections]:
    """The detections of ``model`` in each image (see :func:`to_pixels`), one by one, in evaluation mode.

    Raises :class:`ZooError` if an image is too thin to be scaled for the detector.
    """
    return map(finder(model, device=device), images)


def find_objects(
    find: Find, samples: Sequence[AnnotatedImage], unreadable: Unreadable, *, workers: int = 0, world: World = World()
) -> list[Detections]:
    """What ``find`` finds in the images of a dataset; nothing in images that are recorded as ``unreadable``.

    The images are loaded by ``workers`` processes (0: by this one). The processes of ``world`` share the images, and
    all get the whole list.
    """
    none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    loaded = _loaded(samples[world.rank :: world.size], workers)
    shares = world.gather([one if isinstance(one, str) else find(_as_pixels(one)) for one in loaded])
    answers = []
    for number, sample in enumerate(samples):
        answer = shares[number % world.size][number // world.size]
        if isinstance(answer, str):
            unreadable.record(sample.path, "counted as if nothing was found in it", ZooError(answer))
            answer = none
        answers.append(answer)
    return answers


class _Loaded(TorchDataset[npt.NDArray[np.uint8] | str]):
    """The pixels of each image, an array because worker processes need a file descriptor for every tensor."""

    def __init__(self, samples: Sequence[AnnotatedImage]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> npt.NDArray[np.uint8] | str:
        try:
            return _eight_bits(open_image(self._samples[index]))
        except ZooError as error:
            return str(error)


def _loaded(samples: Sequence[AnnotatedImage], workers: int) -> Iterator[npt.NDArray[np.uint8] | str]:
    """The pixels (height, width, 3) of the images in order, or the reason why one cannot be read."""
    loader: DataLoader[npt.NDArray[np.uint8] | str] = DataLoader(
        _Loaded(samples),
        batch_size=None,
        num_workers=worker_count(workers, len(samples)),
        collate_fn=_unchanged,
        generator=torch.Generator(),  # otherwise the loader would use the caller's
        worker_init_fn=worker_init(),
    )
    return unless_worker_dies(loader)


def _unchanged(value: Any) -> Any:
    return value


def to_pixels(image: Image) -> Tensor:
    """An image of any kind as RGB in [0, 1], shape (3, height, width), read as for classifiers."""
    return _as_pixels(_eight_bits(image))


def _eight_bits(image: Image) -> npt.NDArray[np.uint8]:
    return np.array(to_eight_bits(image, "RGB"))


def _as_pixels(values: npt.NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(values).permute(2, 0, 1).float().div_(255)


def read_pixels(sample: AnnotatedImage) -> Tensor:
    """The pixels of a dataset's image. Raises :class:`ZooError` if its size is not the annotated one."""
    return to_pixels(open_image(sample))

"""Running a detector on images and datasets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.transforms.functional import pil_to_tensor

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.images.pixels import to_eight_bits
from fbnetv3_zoo.training.distributed import World

from ..data.coco import AnnotatedImage, open_image
from ..data.faults import Unreadable
from ..data.fitting import check_scalable
from .evaluate import Detections


def detect(
    model: FasterRCNN, images: Iterable[Tensor], *, device: torch.device = torch.device("cpu")
) -> Iterator[Detections]:
    """The detections of ``model`` in each image (see :func:`to_pixels`), one by one, in evaluation mode.

    Raises :class:`ZooError` if an image is too thin to be scaled for the detector.
    """
    model.eval()
    for image in images:
        check_scalable(model, image.shape[2], image.shape[1])
        with torch.inference_mode():
            (output,) = model([image.to(device)])
        yield Detections(*(output[key].cpu().numpy() for key in ("boxes", "scores", "labels")))


def find_objects(
    model: FasterRCNN, samples: Sequence[AnnotatedImage], unreadable: Unreadable, *, device: torch.device,
    world: World = World(),
) -> list[Detections]:  # fmt: skip
    """The detections of ``model`` in the images of a dataset; none in images that are recorded as ``unreadable``.

    The processes of ``world`` share the images, and all get the whole list.
    """
    none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    shares = world.gather([_detections(model, sample, device) for sample in samples[world.rank :: world.size]])
    answers = []
    for number, sample in enumerate(samples):
        answer = shares[number % world.size][number // world.size]
        if isinstance(answer, str):
            unreadable.record(sample.path, "counted as if nothing was found in it", ZooError(answer))
            answer = none
        answers.append(answer)
    return answers


def _detections(model: FasterRCNN, sample: AnnotatedImage, device: torch.device) -> Detections | str:
    """The detections in an image, or the reason why it cannot be read."""
    try:
        pixels = read_pixels(sample)
    except ZooError as error:
        return str(error)
    (detections,) = detect(model, [pixels], device=device)
    return detections


def to_pixels(image: Image) -> Tensor:
    """An image of any kind as RGB in [0, 1], shape (3, height, width), read as for classifiers."""
    pixels: Tensor = pil_to_tensor(to_eight_bits(image, "RGB"))
    return pixels.float().div_(255)


def read_pixels(sample: AnnotatedImage) -> Tensor:
    """The pixels of a dataset's image. Raises :class:`ZooError` if its size is not the annotated one."""
    return to_pixels(open_image(sample))

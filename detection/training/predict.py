"""What a detector finds in images and in a data set."""

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
    """What ``model`` finds in every image (as of :func:`to_pixels`), one by one; it is put into evaluation mode.

    Raises :class:`ZooError` for an image that is so thin that it cannot be scaled for the detector.
    """
    model.eval()
    for image in images:
        check_scalable(model, image.shape[2], image.shape[1])
        with torch.inference_mode():
            (found,) = model([image.to(device)])
        yield Detections(*(found[key].cpu().numpy() for key in ("boxes", "scores", "labels")))


def find_objects(
    model: FasterRCNN, samples: Sequence[AnnotatedImage], unreadable: Unreadable, *, device: torch.device,
    world: World = World(),
) -> list[Detections]:  # fmt: skip
    """What ``model`` finds in the images of a data set: nothing in one that turns out ``unreadable``.

    The processes of ``world`` share the images, and all get the whole list.
    """
    none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    shares = world.gather([_found(model, sample, device) for sample in samples[world.rank :: world.size]])
    answers = []
    for number, sample in enumerate(samples):
        answer = shares[number % world.size][number // world.size]
        if isinstance(answer, str):
            unreadable.record(sample.path, "counted as if nothing was found in it", ZooError(answer))
            answer = none
        answers.append(answer)
    return answers


def _found(model: FasterRCNN, sample: AnnotatedImage, device: torch.device) -> Detections | str:
    """What is found in an image, or why it cannot be read."""
    try:
        pixels = read_pixels(sample)
    except ZooError as error:
        return str(error)
    (found,) = detect(model, [pixels], device=device)
    return found


def to_pixels(image: Image) -> Tensor:
    """An image of any kind as RGB in [0, 1], shape (3, height, width), read as for classifiers."""
    pixels: Tensor = pil_to_tensor(to_eight_bits(image, "RGB"))
    return pixels.float().div_(255)


def read_pixels(sample: AnnotatedImage) -> Tensor:
    """The pixels of a data set's image. Raises :class:`ZooError` where its size is not the annotated one."""
    return to_pixels(open_image(sample))

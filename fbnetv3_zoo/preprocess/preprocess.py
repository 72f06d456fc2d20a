"""From an image to what a network takes: one implementation for PyTorch, ONNX Runtime and evaluation.

A client of ONNX Runtime needs Pillow and NumPy only: torch is imported where tensors are asked for. Values are frozen
and travel with the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from ..arch import Arch
from ..errors import ZooError, check_number, check_type, check_whole
from ..images import FORMATS as FORMATS
from ..images import LeastSize as LeastSize
from ..images import decode_image as decode_image
from ..images import read_image as read_image
from ..images.limits import MAX_PIXELS as MAX_PIXELS
from ..images.pixels import to_eight_bits
from ..zoo.published import PUBLISHED

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image
    from torch import Tensor

    Floats = npt.NDArray[np.float32]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Interpolation(Enum):
    """Filter used to resize, with antialiasing (Pillow's)."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Resize the shorter side to ``resize`` pixels, centre-crop ``resolution``, scale to [0, 1], normalise.

    Calling it on Pillow images or torch tensors gives a float32 tensor, :meth:`array` without torch a NumPy array, of
    (channels, resolution, resolution) for an image; channels (1: grey, 3: RGB) is the length of ``mean`` and ``std``.
    """

    resize: int
    resolution: int
    interpolation: Interpolation = Interpolation.BILINEAR
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        check_whole("Preprocess.resolution", self.resolution)
        check_whole("Preprocess.resize", self.resize)
        if self.resize < self.resolution:
            raise ZooError(f"Preprocess.resize is {self.resize}; it must be at least the resolution, {self.resolution}")
        check_type("Preprocess.interpolation", self.interpolation, Interpolation, "an Interpolation")
        if not self.mean or len(self.mean) != len(self.std):
            raise ZooError(f"Preprocess.mean has {len(self.mean)} values and std {len(self.std)}; give one a channel")
        for mean, std in zip(self.mean, self.std, strict=True):
            check_number("Preprocess.mean", mean)
            check_number("Preprocess.std", std, above=0)

    @classmethod
    def for_arch(cls, arch: Arch) -> Preprocess:
        """ImageNet's statistics at the network's resolution; the published resize where there is one, else none.

        With one input channel, mean and std are the average of the three.
        """
        published = PUBLISHED.get(arch.name)
        fits = published is not None and published.resolution == arch.resolution
        resize = published.resize if published is not None and fits and published.resize else arch.resolution
        return cls(resize=resize, resolution=arch.resolution).for_channels(arch.in_channels)

    def at_resolution(self, side: int) -> Preprocess:
        """The same for images of ``side`` pixels; they are resized to as much more as before."""
        return replace(self, resize=round(self.resize * side / self.resolution), resolution=side)

    def for_channels(self, channels: int) -> Preprocess:
        """The same for ``channels`` channels; where that is another number, each takes the average mean and std."""
        if channels == len(self.mean):
            return self
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        return replace(self, mean=(mean,) * channels, std=(std,) * channels)

    def __call__(self, images: Image.Image | Tensor | Sequence[Image.Image] | Sequence[Tensor]) -> Tensor:
        """The float32 tensor that a network takes: (channels, resolution, resolution) for one image, else a batch.

        Args:
            images: a Pillow image of any mode; a tensor (channels, height, width), uint8 from 0 to 255 or floating
                from 0 to 1; a batch of such tensors (images, channels, height, width); or a list or tuple of Pillow
                images or of tensors, each of its own size. One channel is repeated for a network that takes three,
                three become grey for one that takes one. The answer is on the tensors' device.

        A uint8 tensor and the Pillow image with the same pixels give the same numbers to about a grey level.
        """
        import torch

        if not isinstance(images, (list, tuple)):
            return self._one(images, (3, 4))
        if not images:
            raise ZooError("an empty list; give at least one image")
        prepared = []
        for number, image in enumerate(images):
            try:
                prepared.append(self._one(image, (3,)))
            except ZooError as error:
                raise ZooError(f"images[{number}]: {error}") from None
        if len(devices := sorted({str(image.device) for image in prepared})) > 1:
            raise ZooError(f"images lie on {' and '.join(devices)}; move them to one device")
        return torch.stack(prepared)

    def array(self, image: Image.Image) -> Floats:
        """The float32 array that a network takes, shape (channels, resolution, resolution), of an image of any mode."""
        return self.normalise(self.crop(image))

    def normalise(self, image: Image.Image) -> Floats:
        """The array of an 8-bit image that :meth:`crop` or :meth:`convert` gave, shape (channels, height, width)."""
        import numpy as np

        array = np.asarray(image, dtype=np.float32) / 255.0
        channels = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        mean, std = (np.array(values, dtype=np.float32)[:, None, None] for values in (self.mean, self.std))
        return np.ascontiguousarray((channels - mean) / std, dtype=np.float32)

    def crop(self, image: Image.Image) -> Image.Image:
        """The 8-bit image that the network sees: converted, resized, cropped."""
        from PIL import Image

        image = self.convert(image)
        size, (left, top) = self._frame(*image.size)
        if size != image.size:
            image = image.resize(size, Image.Resampling[self.interpolation.name])
        return image.crop((left, top, left + self.resolution, top + self.resolution))

    def check_size(self, width: int, height: int) -> None:
        """Raise :class:`ZooError` for an image of so many pixels that is too thin: resized, it would be too large."""
        self._frame(width, height)

    def _frame(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Width and height to resize an image of this size to, and left and top of the crop from it."""
        short = min(width, height)
        if short == 0:
            raise ZooError(f"an image of {width} x {height} pixels is empty")
        size = (self.resize * width // short, self.resize * height // short)
        if size[0] * size[1] > MAX_PIXELS:  # a thin image of few pixels would fill the memory
            raise ZooError(
                f"an image of {width} x {height} pixels is {size[0]} x {size[1]} when resized; crop it first"
            )
        return size, (round((size[0] - self.resolution) / 2), round((size[1] - self.resolution) / 2))

    def _one(self, image: object, dims: tuple[int, ...]) -> Tensor:
        """The network's tensor of a Pillow image or of a tensor with so many dimensions."""
        import torch
        from PIL import Image

        from . import tensors

        if isinstance(image, Image.Image):
            return torch.from_numpy(self.array(image))
        pixels = tensors.checked(image, dims, len(self.mean))
        (width, height), (left, top) = self._frame(pixels.shape[-1], pixels.shape[-2])
        whole, mode, side = pixels.dtype == torch.uint8, self.interpolation.value, self.resolution
        levels = tensors.levels(pixels).reshape(-1, *pixels.shape[-3:])
        if len(self.mean) < levels.shape[1]:
            levels = tensors.grey(levels, whole=whole)
        # Width before height, as in Pillow (13 turns it round for some upright images). What is cropped off goes first.
        levels = tensors.resize(levels, 3, width, mode, whole=whole)[..., left : left + side]
        levels = tensors.resize(levels, 2, height, mode, whole=whole)[..., top : top + side, :]
        mean, std = (levels.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        # A single channel becomes as many as there are means.
        return ((levels / 255 - mean) / std).reshape(*pixels.shape[:-3], len(self.mean), side, side).contiguous()

    def convert(self, image: Image.Image) -> Image.Image:
        """``image`` as 8-bit grey or RGB, whichever the network takes, as ``pixels.py`` reads images of any kind."""
        if len(self.mean) not in (1, 3):
            raise ZooError(f"this network takes {len(self.mean)} channels; image files can only fill 1 or 3")
        return to_eight_bits(image, "L" if len(self.mean) == 1 else "RGB")


def stack(preprocess: Preprocess, images: Sequence[Image.Image]) -> Floats:
    """The batch (images, channels, resolution, resolution) of preprocessed images."""
    import numpy as np

    return np.stack([preprocess.array(image) for image in images])

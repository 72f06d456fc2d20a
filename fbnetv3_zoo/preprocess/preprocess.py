"""From images to the input of a network: one implementation for PyTorch, ONNX Runtime and evaluation.

With ONNX Runtime only Pillow and NumPy are needed: torch is imported only for tensors. A :class:`Preprocess` is a
frozen value that is stored with the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from ..arch.torchvision_arch import AnyArch
from ..errors import ZooError, check_number, check_type, check_whole
from ..images import FORMATS as FORMATS
from ..images import LeastSize as LeastSize
from ..images import decode_image as decode_image
from ..images import read_image as read_image
from ..images.formats import no_image
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
    """Resampling filter, with antialiasing (Pillow's)."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Resize the shorter side to ``resize`` pixels, center-crop to ``resolution``, scale to [0, 1], normalize.

    Call it on Pillow images or torch tensors to get a float32 tensor; :meth:`array` returns a NumPy array without
    torch. Both have shape (channels, resolution, resolution) for one image. The number of channels (1: gray, 3: RGB) is
    the length of ``mean`` and ``std``.
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
            raise ZooError(f"Preprocess.mean has {len(self.mean)} values and std {len(self.std)}; give one per channel")
        for mean, std in zip(self.mean, self.std, strict=True):
            check_number("Preprocess.mean", mean)
            check_number("Preprocess.std", std, above=0)

    @classmethod
    def for_arch(cls, arch: AnyArch) -> Preprocess:
        """The default for ``arch``: ImageNet's mean and std, the network's resolution, the published resize if any.

        For a number of channels other than 3, mean and std are the averages of ImageNet's.
        """
        published = PUBLISHED.get(arch.name)
        fits = published is not None and published.resolution == arch.resolution
        resize = published.resize if published is not None and fits and published.resize else arch.resolution
        return cls(resize=resize, resolution=arch.resolution).for_channels(arch.in_channels)

    def at_resolution(self, side: int) -> Preprocess:
        """This preprocessing at a resolution of ``side`` pixels; ``resize`` is scaled in proportion."""
        return replace(self, resize=round(self.resize * side / self.resolution), resolution=side)

    def for_channels(self, channels: int) -> Preprocess:
        """This preprocessing for ``channels`` channels; if the number changes, each gets the average mean and std."""
        if channels == len(self.mean):
            return self
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        return replace(self, mean=(mean,) * channels, std=(std,) * channels)

    def __call__(self, images: Image.Image | Tensor | Sequence[Image.Image] | Sequence[Tensor]) -> Tensor:
        """The network's input, float32: (channels, resolution, resolution) for one image, otherwise a batch of those.

        Args:
            images: a Pillow image of any mode; a tensor (channels, height, width), uint8 from 0 to 255 or floating
                from 0 to 1; a batch of such tensors (batch, channels, height, width); or a list or tuple of Pillow
                images or of tensors, of any sizes. Gray is repeated for a network of three channels, RGB converted to
                gray for a network of one. The result is on the device of the tensors.

        A uint8 tensor and a Pillow image with the same pixels agree within about one gray level. Raises
        :class:`ZooError` for anything else.
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
        """The network's input for an image of any mode: float32, shape (channels, resolution, resolution)."""
        return self.normalize(self.crop(image))

    def normalize(self, image: Image.Image | npt.NDArray[np.uint8]) -> Floats:
        """The normalized 8-bit image from :meth:`crop` or :meth:`convert`: float32, (channels, height, width).

        Of an array (images, height, width, channels), all images: (images, channels, height, width).
        """
        import numpy as np

        array = np.asarray(image, dtype=np.float32) / 255.0
        channels = array[None] if array.ndim == 2 else np.moveaxis(array, -1, -3)
        mean, std = (np.array(values, dtype=np.float32)[:, None, None] for values in (self.mean, self.std))
        return np.ascontiguousarray((channels - mean) / std, dtype=np.float32)

    def crop(self, image: Image.Image) -> Image.Image:
        """The 8-bit image that the network sees: converted, resized and cropped."""
        from PIL import Image

        image = self.convert(image)
        size, (left, top) = self._frame(*image.size)
        if size != image.size:
            image = image.resize(size, Image.Resampling[self.interpolation.name])
        return image.crop((left, top, left + self.resolution, top + self.resolution))

    def check_size(self, width: int, height: int) -> None:
        """Raise :class:`ZooError` for an image so narrow that it would be too large when resized."""
        self._frame(width, height)

    def _frame(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Width and height after resizing, and left and top of the crop."""
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
        """The network's input for a Pillow image or for a tensor with one of the numbers of dimensions ``dims``."""
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
            levels = tensors.gray(levels, whole=whole)
        # Width before height, as in Pillow (13 swaps them for some upright images). Crop before the second resize.
        levels = tensors.resize(levels, 3, width, mode, whole=whole)[..., left : left + side]
        levels = tensors.resize(levels, 2, height, mode, whole=whole)[..., top : top + side, :]
        mean, std = (levels.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        # A single channel becomes as many as there are means.
        return ((levels / 255 - mean) / std).reshape(*pixels.shape[:-3], len(self.mean), side, side).contiguous()

    def convert(self, image: Image.Image) -> Image.Image:
        """``image`` as 8-bit gray or RGB, whichever the network takes; see ``images/pixels.py``."""
        if len(self.mean) not in (1, 3):
            raise ZooError(f"this network takes {len(self.mean)} channels; image files can only fill 1 or 3")
        return to_eight_bits(image, "L" if len(self.mean) == 1 else "RGB")


def stack(preprocess: Preprocess, images: Sequence[Image.Image]) -> Floats:
    """The preprocessed images as a batch (batch, channels, resolution, resolution)."""
    import numpy as np
    from PIL import Image

    prepared = []
    for number, image in enumerate(images):
        if not isinstance(image, Image.Image):
            raise ZooError(f"images[{number}]: {no_image(image, 'a Pillow image')}")
        prepared.append(preprocess.array(image))
    return np.stack(prepared)

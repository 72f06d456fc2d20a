"""The teacher of a distillation: any module, published name, model file or ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from blake3 import blake3
from torch import Tensor, nn

from ..classify import Floats
from ..errors import ZooError, nearest, shown
from ..factory import create
from ..models.network import Network
from ..models.torchvision_model import TorchvisionModel
from ..preprocess import Preprocess
from ..preprocess.tensors import gray
from ..runtimes.ort import open_onnx
from ..runtimes.sandbox import LARGEST_MODEL
from ..utils.digest import digest_of
from ..utils.log import LOG
from ..utils.paths import exists, read_file
from ..weights.registry import RECORDS
from ..weights.serialization import load
from ..zoo import ARCHS
from .class_matching import match_classes
from .data import Dataset
from .distributed import World
from .evaluation import Evaluation, evaluate
from .execution import Execution

TeacherSource: TypeAlias = "Teacher | nn.Module | str | Path"


class Teacher:
    """Computes logits for the student's images, at its own resolution and with its own normalization.

    Always in evaluation mode, without gradients. ``name`` is for messages; ``digest`` identifies its weights (a run is
    only resumed with the same teacher); ``class_names`` are None if unknown.
    """

    def __init__(
        self, answer: Callable[[Tensor], tuple[Tensor, Tensor | None]], preprocess: Preprocess, *, name: str,
        digest: str, class_names: tuple[str, ...] | None, map_channels: int | None,
    ) -> None:  # fmt: skip
        self.preprocess, self.name, self.digest, self.class_names = preprocess, name, digest, class_names
        self.map_channels = map_channels
        self._answer = answer
        self._order: Tensor | None = None

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits (images, classes) and, if the teacher has one, the last map, for square images in [0, 1].

        ``pixels``: (images, channels, height, width), mixed like the student's, before normalization. After
        :meth:`check` the classes are in the data's order.
        """
        with torch.no_grad():
            logits, maps = self._answer(_prepared(pixels, self.preprocess))
        return self._in_order(logits).float(), maps

    def check(self, data: Dataset, *, world: World, execution: Execution) -> Evaluation:
        """Evaluate the teacher on the validation split. Raises :class:`ZooError` if its classes differ."""
        self._order = self._order_for(data)

        def predict(images: Floats) -> Floats:
            with torch.no_grad():
                logits: Floats = self._answer(torch.from_numpy(images).to(world.device))[0].float().cpu().numpy()
            if logits.shape != (len(images), len(data.class_names)):
                shape, classes = logits.shape[1:], len(data.class_names)
                raise ZooError(
                    f"teacher {self.name}: has logits of shape {shape}, but {data.name} has {classes} classes"
                )
            return logits if self._order is None else logits[:, self._order.numpy()]

        evaluation = evaluate(
            predict, data["validation"], self.preprocess, workers=execution.workers,
            on_bad_image=execution.on_bad_image, world=world,
        )  # fmt: skip
        if world.leads:
            LOG.info("teacher %s: validation accuracy %s", self.name, evaluation)
        if world.leads and evaluation.fraction * len(data.class_names) <= 1:
            LOG.warning("teacher %s is no better than chance on %s", self.name, data.name)
        return evaluation

    def _order_for(self, data: Dataset) -> Tensor | None:
        """The teacher's index of every class of ``data``; None if the order is the same."""
        names = self.class_names
        if names is None:
            return None
        try:
            order = match_classes(names, len(names), data.class_names, network=f"teacher {self.name}", data=data.name)
        except ZooError as error:
            raise ZooError(f"{error}; train one on this data") from None
        return None if np.array_equal(order, np.arange(len(order))) else torch.from_numpy(order)

    def _in_order(self, logits: Tensor) -> Tensor:
        return logits if self._order is None else logits[:, self._order.to(logits.device)]


def find_teacher(source: TeacherSource, *, preprocess: Preprocess, device: torch.device) -> Teacher:
    """The teacher given as ``source``, on ``device`` (ONNX files: on the CPU).

    ``source`` is a module (which is copied), the name of published weights, a ``.safetensors`` or ``.onnx`` file of
    this project, or ``hf-hub:owner/name``. A module that does not describe its preprocessing gets ``preprocess``.
    """
    if isinstance(source, Teacher):
        return source
    if isinstance(source, nn.Module):
        name = source.arch.name if isinstance(source, Network) else type(source).__name__
        return _module_teacher(deepcopy(source), preprocess, device, name=name)
    name = str(source)
    if name in ARCHS or name in RECORDS:
        return _module_teacher(create(name, pretrained=True), preprocess, device, name=name)
    if name.endswith(".onnx"):
        return _onnx_teacher(Path(source))
    if not name.startswith("hf-hub:") and not Path(name).suffix and not exists(name):
        guess = nearest(name, [*ARCHS, *RECORDS])
        raise ZooError(f"unknown teacher {shown(name)}{guess}; give one of `fbnetv3 list`, or a model file")
    return _module_teacher(load(source), preprocess, device, name=name)


def _module_teacher(network: nn.Module, preprocess: Preprocess, device: torch.device, *, name: str) -> Teacher:
    network.to(device).requires_grad_(False)
    ours = network if isinstance(network, Network) else None
    mapped = None if isinstance(network, TorchvisionModel) else ours

    def answer(images: Tensor) -> tuple[Tensor, Tensor | None]:
        network.eval()
        if mapped is None:
            return network(images), None
        maps = mapped.forward_features(images)
        return mapped.forward_head(maps), maps

    return Teacher(
        answer,
        preprocess if ours is None else ours.preprocess,
        name=name,
        digest=_digest(network),
        class_names=None if ours is None else ours.class_names,
        map_channels=None if mapped is None else mapped.feature_info[-1].channels,
    )


def _onnx_teacher(path: Path) -> Teacher:
    data = read_file(path, "a model file", at_most=LARGEST_MODEL)  # read once, so that the digest is that of the model
    opened = open_onnx(path, data=data)

    def answer(images: Tensor) -> tuple[Tensor, Tensor | None]:
        array = np.ascontiguousarray(images.float().cpu().numpy())
        return torch.from_numpy(opened.logits(array)).to(images.device), None

    about, digest = opened.description, digest_of(data)
    names = about.class_names
    return Teacher(answer, about.preprocess, name=str(path), digest=digest, class_names=names, map_channels=None)


def _digest(network: nn.Module) -> str:
    hasher = blake3()
    for name, tensor in network.state_dict().items():
        hasher.update(name.encode())
        hasher.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def _prepared(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Images in [0, 1] preprocessed for the teacher; unlike in evaluation, nothing is cropped."""
    channels, side = len(preprocess.mean), preprocess.resolution
    if pixels.shape[1] != channels:
        one = gray(pixels, whole=False) if pixels.shape[1] == 3 else pixels.mean(1, keepdim=True)
        pixels = one.expand(-1, channels, -1, -1)
    if pixels.shape[-1] != side:
        pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    return normalized(pixels, preprocess)


def normalized(pixels: Tensor, preprocess: Preprocess, *, in_place: bool = False) -> Tensor:
    """``(pixels - mean) / std`` per channel, of images (images, channels, height, width) in [0, 1]."""
    mean, std = (_row(pixels, values) for values in (preprocess.mean, preprocess.std))
    return (pixels.sub_(mean) if in_place else pixels - mean).div_(std)


def _row(pixels: Tensor, values: tuple[float, ...]) -> Tensor:
    """Per-channel ``values`` as a row of pixels in channels-last layout; broadcasting along three axes is slow."""
    row = pixels.new_tensor(values).view(1, -1, 1, 1).expand(1, -1, 1, pixels.shape[-1])
    return row.contiguous(memory_format=torch.channels_last)

"""Saving and loading a detector as one safetensors file, with its description in the metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.errors import LARGEST, ZooError, check_number, nearest
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.models.network import unwrapped
from fbnetv3_zoo.utils.serialization import from_json, is_unicode, to_json
from fbnetv3_zoo.weights.effective_state import effective_state
from fbnetv3_zoo.weights.serialization import read_tensors, write_tensors

from .faster_rcnn import RCNNSettings, faster_rcnn_c4, faster_rcnn_fpn
from .presets import DETECTORS

FORMAT = "fbnetv3_zoo.detector"


class DetectorKind(Enum):
    """How a detector uses its network: cut after stride 16, or with a feature pyramid."""

    C4 = "c4"
    FPN = "fpn"


@dataclass(frozen=True)
class DetectorSpec:
    """What a detector is built from: a network (or ``published``, the name of a detector), classes and settings.

    ``mean`` and ``std`` normalize the colors of images in [0, 1]; None for the network's own. ``weights`` names the
    published weights that training started from, ``license`` is their SPDX identifier; None if unknown.
    """

    class_names: tuple[str, ...]
    arch: Arch | None = None
    published: str = ""
    kind: DetectorKind = DetectorKind.C4
    settings: RCNNSettings = RCNNSettings()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    weights: str | None = None
    license: str | None = field(default=None, metadata={"key": "licence"})

    def __post_init__(self) -> None:
        if (self.arch is None) == (not self.published):
            raise ZooError("DetectorSpec: give a network (arch) or the name of a published detector, one of the two")
        if self.published and self.published not in DETECTORS:
            raise ZooError(f"unknown detector {self.published!r}{nearest(self.published, DETECTORS)}")
        if not self.class_names:
            raise ZooError("DetectorSpec.class_names is empty; name at least one class")
        for name in self.class_names:
            if not isinstance(name, str) or not is_unicode(name):
                raise ZooError(f"DetectorSpec.class_names has {name!r}, which is not valid Unicode text; rename it")
        if self.arch is not None and self.arch.in_channels != 3:
            raise ZooError(f"{self.arch.name}: takes {self.arch.in_channels} channels; detectors need 3 (RGB)")
        if (self.mean is None) != (self.std is None):
            raise ZooError("DetectorSpec: give both mean and std of the colors, or neither")
        for name, values, least in (("mean", self.mean, -LARGEST), ("std", self.std, 1e-6)):
            if values is not None and len(values) != 3:
                raise ZooError(f"DetectorSpec.{name} has {len(values)} values; give one for each of R, G and B")
            for value in values or ():
                check_number(f"DetectorSpec.{name}", value, at_least=least)

    @property
    def network(self) -> str:
        """Name of the network or of the published detector."""
        return self.published if self.arch is None else self.arch.name

    def with_weights_of(self, source: FBNet) -> DetectorSpec:
        """This detector on the network ``source``, with its mean, std and origin."""
        mean, std = tuple(source.preprocess.mean), tuple(source.preprocess.std)
        return replace(self, arch=source.arch, mean=mean, std=std, weights=source.weights, license=source.license)

    def build(self, *, source: FBNet | None = None, freeze_at: int = 0, fixed_norms: bool = False) -> FasterRCNN:
        """The detector in training mode, with the weights of ``source`` in its trunk (and in the box head of C4)."""
        builder = faster_rcnn_c4 if self.kind is DetectorKind.C4 else faster_rcnn_fpn
        model = builder(
            source or self.arch or self.published, num_classes=len(self.class_names), freeze_at=freeze_at,
            fixed_norms=fixed_norms, settings=self.settings,
        )  # fmt: skip
        if self.mean is not None and self.std is not None:
            model.transform.image_mean, model.transform.image_std = [*self.mean], [*self.std]
        return model


def save_detector(model: FasterRCNN, spec: DetectorSpec, path: str | Path) -> None:
    """Write ``model``, built from ``spec``, to ``path`` (``.safetensors``), for :func:`load_detector`.

    The model may be compiled, wrapped (DataParallel, an average of weights), in half precision or have frozen norms;
    the file restores the plain model. Raises :class:`ZooError` if :func:`load_detector` would refuse the file.
    """
    if Path(path).suffix != ".safetensors":
        raise ZooError(f"{path}: weights are saved as .safetensors; change the extension")
    tensors = effective_state(unwrapped(model))
    check_tensors(spec, tensors, f"{path}: not written, since it could not be loaded again")
    write_tensors(path, tensors, {"format": FORMAT, "detector": to_json(spec)})


def load_detector(path: str | Path) -> tuple[FasterRCNN, DetectorSpec]:
    """The detector stored at ``path``, in evaluation mode and single precision, and its spec.

    Raises :class:`ZooError` if the file is missing, damaged or not a detector.
    """
    file = read_tensors(path)
    spec = parse_spec(file.metadata, str(path))
    check_tensors(spec, file.tensors, str(path))
    model = spec.build()
    model.load_state_dict(file.tensors)
    return model.eval(), spec


def check_tensors(spec: DetectorSpec, tensors: Mapping[str, Tensor], context: str) -> None:
    """Raise :class:`ZooError`, which begins with ``context``, unless ``tensors`` are those of a detector of ``spec``.

    The check allocates no memory for the detector, however large the file says it is.
    """
    try:
        with torch.device("meta"):
            expected = spec.build().state_dict()
    except ZooError as error:
        raise ZooError(f"{context}: {error}") from None
    wrong = [name for name in expected.keys() & tensors.keys() if not _alike(expected[name], tensors[name])]
    if expected.keys() != tensors.keys() or wrong:
        differing = ", ".join(sorted(wrong or expected.keys() ^ tensors.keys())[:3])
        raise ZooError(f"{context}: its tensors do not match the detector it describes ({differing})")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ZooError(f"{context}: its weights have NaN or infinite values ({name}); train it again")


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.is_floating_point() == other.is_floating_point()


def parse_spec(metadata: Mapping[str, str], name: str) -> DetectorSpec:
    """The spec in the metadata of a detector's file; errors begin with ``name``."""
    if metadata.get("format") != FORMAT:
        raise ZooError(f"{name}: not a detector; give a file written by `fbnetv3 detect train` or `detect export`")
    try:
        return from_json(DetectorSpec, metadata["detector"])
    except KeyError:
        raise ZooError(f"{name}: has no description; download, save or export it again") from None
    except ZooError as error:
        raise ZooError(f"{name}: {error}") from None

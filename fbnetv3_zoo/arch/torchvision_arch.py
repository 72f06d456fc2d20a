"""A model of torchvision as one value: its name, how it is scaled, its images and classes. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from ..errors import ZooError, check_number, check_whole, nearest, plain_whole, shown
from ..utils.serialization import format_of, from_json, to_json
from .arch import Arch

PREFIX = "torchvision:"
"""What a name begins with that means a model of torchvision."""

_FACTORS = ("width", "depth")
_FORM = f"write {PREFIX}NAME or {PREFIX}NAME@width=1.4,depth=2"


@dataclass(frozen=True)
class TorchvisionArch:
    """A classification model of torchvision, as ``torchvision:resnet18@width=1.4`` names it.

    ``model`` is torchvision's name. ``width`` multiplies the channels, ``depth`` the number of blocks; whether the
    model has them is checked when it is built (:mod:`fbnetv3_zoo.models.torchvision_model`). ``resolution`` is the
    side of the images in pixels. Their ``in_channels`` are 3, or 1 for gray images, which are given to all three
    channels. Raises :class:`ZooError` for values out of range.
    """

    model: str
    width: float = 1.0
    depth: float = 1.0
    resolution: int = 224
    in_channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not re.fullmatch(r"[A-Za-z0-9_]{1,100}", self.model):
            raise ZooError(f"TorchvisionArch.model is {shown(self.model)}; give a name such as resnet18")
        for field in _FACTORS:
            check_number(f"{PREFIX}{self.model}: {field}", getattr(self, field), above=0, at_most=16)
        for field in ("resolution", "num_classes", "in_channels"):
            object.__setattr__(self, field, plain_whole(getattr(self, field)))
        for field in ("resolution", "num_classes"):
            check_whole(f"{PREFIX}{self.model}: {field}", getattr(self, field))
        if self.in_channels not in (1, 3):
            raise ZooError(f"{PREFIX}{self.model}: in_channels is {self.in_channels!r}; it takes color (3) or gray (1)")

    @classmethod
    def parse(cls, text: str) -> TorchvisionArch:
        """The model that ``text`` names: ``torchvision:NAME``, or with factors ``torchvision:NAME@width=1.4,depth=2``.

        Raises :class:`ZooError` for text of another form; whether torchvision has the model is not checked here.
        """
        name, at, rest = text.removeprefix(PREFIX).partition("@")
        if not text.startswith(PREFIX) or not re.fullmatch(r"[A-Za-z0-9_]{1,100}", name) or (at and not rest):
            raise ZooError(f"{shown(text)} names no model of torchvision; {_FORM}")
        factors = {"width": 1.0, "depth": 1.0}
        for part in filter(None, rest.split(",")):
            field, _, value = part.partition("=")
            if field not in _FACTORS:
                raise ZooError(f"{text}: has no factor {field!r}{nearest(field, _FACTORS)}; {_FORM}")
            try:
                factors[field] = float(value)
            except ValueError:
                raise ZooError(f"{text}: {field} is {value!r}, not a number; {_FORM}") from None
        return cls(name, factors["width"], factors["depth"])

    @property
    def name(self) -> str:
        """The text that :meth:`parse` reads as this model."""
        factors = [f"{field}={getattr(self, field):g}" for field in _FACTORS if getattr(self, field) != 1]
        return f"{PREFIX}{self.model}{'@' if factors else ''}{','.join(factors)}"

    @property
    def min_resolution(self) -> int:
        """A bound for all models; whether one can compute a side is tried when it is built."""
        return 1

    def __str__(self) -> str:
        images = f"{self.in_channels} x {self.resolution} x {self.resolution} pixels"
        return f"{self.name}: {images}, {self.num_classes:,} classes"

    def to_json(self) -> str:
        """This model as JSON, for :meth:`from_json`."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> TorchvisionArch:
        """The model in the JSON ``text``. Raises :class:`ZooError` naming the key that is wrong."""
        return from_json(cls, text)


AnyArch: TypeAlias = Arch | TorchvisionArch
"""A network of this project, or one of torchvision's, as a value."""


def arch_from_json(text: str | bytes) -> AnyArch:
    """The network in the JSON ``text``, of either kind. Raises :class:`ZooError` naming the key that is wrong."""
    kind = format_of(text, "arch JSON")
    return TorchvisionArch.from_json(text) if kind == "fbnetv3_zoo.torchvision_arch" else Arch.from_json(text)


def is_torchvision(model: object) -> bool:
    """Whether ``model`` is text that names a model of torchvision."""
    return isinstance(model, str) and model.startswith(PREFIX)

"""The metadata of a model file: network, preprocessing, class names.

Safetensors and ONNX files contain the same entries, so that either alone restores a working classifier.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .arch.torchvision_arch import AnyArch, arch_from_json
from .errors import ZooError, shown
from .preprocess import Preprocess
from .utils.serialization import from_plain, json_text, parse_json, to_plain

FORMAT, VERSION = "fbnetv3_zoo", "1"


@dataclass(frozen=True, slots=True)
class Description:
    """The metadata of a model file.

    ``class_names`` has one name per class; None if unknown. ``weights`` is the name of the published weights that these
    are or were trained from, ``license`` the SPDX identifier of their license; None if unknown. ``trained_on`` has
    digests of some images that the network was trained on (:mod:`fbnetv3_zoo.training.data.seen`); empty if unknown.
    """

    arch: AnyArch
    preprocess: Preprocess
    class_names: tuple[str, ...] | None = None
    weights: str | None = None
    license: str | None = None
    trained_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names, classes = self.class_names, self.arch.num_classes
        if names is not None and len(names) != classes:
            raise ZooError(f"class_names has {len(names)} names; {self.arch.name} has {classes} classes")

    def to_metadata(self) -> dict[str, str]:
        """The metadata entries to write into a file."""
        origin = {"weights": self.weights, "licence": self.license}
        origin["trained_on"] = json_text(self.trained_on) if self.trained_on else None
        return {
            "format": FORMAT,
            "format_version": VERSION,
            "arch": self.arch.to_json(),
            "preprocess": json.dumps(to_plain(self.preprocess, defaults=True)),
            "class_names": json_text(self.class_names),
            **{key: value for key, value in origin.items() if value is not None},
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Description | None:
        """The description in a file's metadata; None if the file is not of this project.

        Raises :class:`ZooError` for a damaged description and for one of a newer format.
        """
        if metadata.get("format") != FORMAT:
            return None
        if (version := metadata.get("format_version")) != VERSION:
            raise ZooError(f"has format version {shown(version)}; this release reads {VERSION!r}, upgrade fbnetv3-zoo")
        try:
            arch = arch_from_json(metadata["arch"])
            preprocess = from_plain(Preprocess, parse_json(metadata["preprocess"], "preprocess"), "preprocess")
            names = _names(parse_json(metadata["class_names"], "class_names"), "class_names")
            trained_on = _names(parse_json(metadata.get("trained_on", "null"), "trained_on"), "trained_on") or ()
            return cls(arch, preprocess, names, metadata.get("weights"), metadata.get("licence"), trained_on)
        except KeyError as error:
            raise ZooError(f"damaged description (it lacks {error})") from None
        except ZooError as error:
            raise ZooError(f"damaged description ({error})") from None

    def name_of(self, index: int) -> str:
        """The name of class ``index``, or the number as text if names are unknown."""
        return str(index) if self.class_names is None else self.class_names[index]


def other_kind(metadata: Mapping[str, str]) -> str | None:
    """For a file of this project other than a classifier: what it is, and which command reads it; otherwise None."""
    return _OTHER_KINDS.get(metadata.get("format", "").partition(" ")[0])


_OTHER_KINDS = {
    "fbnetv3_zoo.detector": "is a detector, not a classifier; a .safetensors file of one is for `fbnetv3 detect "
    "predict`, `detect validate` and `detect export`",
    "fbnetv3_zoo.checkpoint": "is a checkpoint of a run, not a model; take model.safetensors of the run's folder, or "
    "continue the run with --resume",
    "fbnetv3_zoo.encoder": "is a search's encoder, not a classifier; `fbnetv3 search` uses it by itself",
    "fbnetv3_zoo.images": "is a data set, not a model; `fbnetv3 train` and every --data take it",
    "fbnetv3_zoo.recording": "is a recording of a search, not a classifier; `fbnetv3 search run --table` takes it",
}


def _names(data: Any, entry: str) -> tuple[str, ...] | None:
    if data is None:
        return None
    if not isinstance(data, list) or not all(isinstance(name, str) for name in data):
        raise ZooError(f"{entry} is not a list of names")
    return tuple(data)

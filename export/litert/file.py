"""The content of a LiteRT file: the model, its metadata, the class names, and the seal."""

from __future__ import annotations

from collections.abc import Mapping

from fbnetv3_zoo.description import Description
from fbnetv3_zoo.runtimes.litert_tflite import metadata_of
from fbnetv3_zoo.runtimes.seal import sealed

from .graph import Model
from .metadata import NAME, field_metadata, with_labels


def content(model: Model, entries: Mapping[str, str]) -> bytes:
    """The bytes of a file with ``model`` and with ``entries``, which have a network's description if it has one."""
    description = Description.from_metadata(entries)
    metadata = metadata_of(dict(entries))
    if description is None:
        return sealed(model.packed(metadata))
    metadata[NAME] = field_metadata(description)
    return sealed(with_labels(model.packed(metadata), description.class_names))

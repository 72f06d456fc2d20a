"""The metadata that tools of the field read: normalization and class names, in the schema of LiteRT's metadata.

The schema is mediapipe/tasks/metadata/metadata_schema.fbs, version 1.5; its tables are built here field by field, by
the numbers that the fields have there, as no small package has the generated code. The class names are a file
``labels.txt`` in a ZIP archive behind the model, which is how the schema associates files.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import flatbuffers

from fbnetv3_zoo.description import Description
from fbnetv3_zoo.preprocess import Preprocess

NAME = "TFLITE_METADATA"
"""Name of the entry of a file that has it."""

LABELS = "labels.txt"
_VERSION = "1.5.0"
_IMAGE, _FEATURE, _NORMALIZATION, _AXIS_LABELS = 2, 1, 1, 2
_RGB, _GRAY = 1, 2
_LONG_AGO = (1980, 1, 1, 0, 0, 0)

Field = Callable[[Any], object]
"""Puts one field into the table that a builder is at."""


def field_metadata(description: Description) -> bytes:
    """The metadata of a classifier from normalized images (batch, height, width, channels) to logits."""
    builder = flatbuffers.Builder(1024)
    labels = [_labels(builder)] if description.class_names is not None else []
    images = _table(
        builder,
        _reference(0, builder.CreateString("images")),
        _reference(1, builder.CreateString("One batch of images, normalized.")),
        _reference(3, _image(builder, description.preprocess)),
        _reference(4, _vector(builder, [_normalization(builder, description.preprocess)])),
    )
    logits = _table(
        builder,
        _reference(0, builder.CreateString("logits")),
        _reference(1, builder.CreateString("A number for each class; softmax makes them probabilities.")),
        _reference(3, _content(builder, _FEATURE, _table(builder))),
        _reference(6, _vector(builder, labels)),
    )
    subgraph = _table(
        builder, _reference(2, _vector(builder, [images])), _reference(3, _vector(builder, [logits]))
    )  # fmt: skip
    license = [_reference(5, builder.CreateString(description.license))] if description.license is not None else []
    model = _table(
        builder,
        _reference(0, builder.CreateString(description.arch.name)),
        _reference(3, _vector(builder, [subgraph])),
        *license,
        _reference(7, builder.CreateString(_VERSION)),
    )
    builder.Finish(model, b"M001")
    return bytes(builder.Output())


def with_labels(data: bytes, class_names: Sequence[str] | None) -> bytes:
    """The file ``data`` with the class names, a line each, behind the model; breaks in names become spaces."""
    if class_names is None:
        return data
    whole = io.BytesIO(data)
    with zipfile.ZipFile(whole, "a") as archive:
        lines = (" ".join(name.splitlines()) for name in class_names)
        archive.writestr(zipfile.ZipInfo(LABELS, _LONG_AGO), "".join(f"{line}\n" for line in lines))
    return whole.getvalue()


def _image(builder: Any, preprocess: Preprocess) -> int:
    def side(slot: int) -> Field:
        return lambda table: table.PrependUint32Slot(slot, preprocess.resolution, 0)

    space = _GRAY if len(preprocess.mean) == 1 else _RGB
    size = _table(builder, side(0), side(1))
    return _content(builder, _IMAGE, _table(builder, _byte(0, space), _reference(1, size)))


def _content(builder: Any, kind: int, properties: int) -> int:
    return _table(builder, _byte(0, kind), _reference(1, properties))


def _normalization(builder: Any, preprocess: Preprocess) -> int:
    """For pixels from 0 to 255: (x - mean) / std."""
    means, deviations = ([255 * value for value in values] for values in (preprocess.mean, preprocess.std))
    options = _table(builder, _reference(0, _floats(builder, means)), _reference(1, _floats(builder, deviations)))
    return _table(builder, _byte(0, _NORMALIZATION), _reference(1, options))


def _labels(builder: Any) -> int:
    return _table(
        builder, _reference(0, builder.CreateString(LABELS)), _byte(2, _AXIS_LABELS)
    )  # fmt: skip


def _table(builder: Any, *fields: Field) -> int:
    builder.StartObject(8)
    for put in fields:
        put(builder)
    return int(builder.EndObject())


def _reference(slot: int, place: int) -> Field:
    return lambda table: table.PrependUOffsetTRelativeSlot(slot, place, 0)


def _byte(slot: int, value: int) -> Field:
    return lambda table: table.PrependInt8Slot(slot, value, 0)


def _vector(builder: Any, places: Sequence[int]) -> int:
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return int(builder.EndVector())


def _floats(builder: Any, values: Sequence[float]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependFloat32(value)
    return int(builder.EndVector())

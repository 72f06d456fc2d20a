"""What an evaluation says of errors, for a page: accuracy by class, confusions, the costliest mistakes."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import ZooError
from ...preprocess import Preprocess
from ...report.page import name
from ..data import Example
from ..evaluation import ClassAccuracy, Evaluation

LINES = 50
"""How many classes, and how many confusions, are listed; up to so many classes a matrix is drawn."""
COUNTED = 20
"""Up to how many classes the cells of the matrix bear their counts."""
MISTAKES = 32
"""How many of the costliest mistakes are shown."""
UNSURE = 16
"""How many of the right answers are shown, those given with the least certainty."""
NAMED = 5
"""How many of the most frequent confusions are named beside the matrix."""

_NAME = 24  # characters of a file's name
_SIDE = 128  # of a picture, in pixels


def errors_of(evaluation: Evaluation, examples: Sequence[Example], preprocess: Preprocess) -> dict[str, object]:
    """The values of the templates for classes, confusions and mistakes; ``examples`` are those evaluated."""
    names, classes = evaluation.class_names, evaluation.per_class
    has_matrix = len(names) <= LINES
    return {
        "most_classes": LINES,
        "classes": worst_first([row for row in classes if row.images]),
        "empty_classes": [row.name for row in classes if not row.images],
        "class_names": names,
        "matrix": _matrix(evaluation) if has_matrix else None,
        "short_names": max(map(len, names)) <= 2,
        "counts_shown": len(names) <= COUNTED,
        "confusions": _confusions(evaluation, NAMED if has_matrix else LINES),
        "wrong": len(evaluation.wrong),
        "mistakes": [_answer(evaluation, row, examples, preprocess) for row in evaluation.wrong[:MISTAKES].tolist()],
        "unsure": [_answer(evaluation, row, examples, preprocess) for row in evaluation.right[:UNSURE].tolist()],
    }


def worst_first(rows: Sequence[ClassAccuracy]) -> list[ClassAccuracy]:
    """``rows`` by accuracy; among equals the one with more images comes first, those without images come last."""
    return sorted(rows, key=lambda row: (2.0 if row.fraction is None else row.fraction, -row.images))


def _matrix(evaluation: Evaluation) -> list[list[int]]:
    """Numbers of images by true class, then by answered class."""
    table = np.zeros((len(evaluation.class_names),) * 2, np.int64)
    table[evaluation.answers[:, 0], evaluation.answers[:, 1]] = evaluation.answers[:, 2]
    counts: list[list[int]] = table.tolist()
    return counts


def _confusions(evaluation: Evaluation, most: int) -> list[tuple[object, ...]]:
    """The most frequent pairs of true and wrongly answered class: names, images, share of the class."""
    answers, names, images = evaluation.answers, evaluation.class_names, np.bincount(evaluation.labels)
    wrong = answers[answers[:, 0] != answers[:, 1]][:most].tolist()
    return [
        (name(names[truth]), name(names[answer]), f"{count:,}", f"{count / images[truth]:.1%}")
        for truth, answer, count in wrong
    ]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to one image. ``picture``: the image as the network saw it, PNG in base64, "" if it cannot be read.

    ``file`` is the end of the image's ``key``, shortened.
    """

    key: str
    file: str
    picture: str
    small: bool
    truth: str
    truth_probability: str
    answer: str
    answer_probability: str
    loss: str


def _answer(evaluation: Evaluation, row: int, examples: Sequence[Example], preprocess: Preprocess) -> Answer:
    example, names = examples[int(evaluation.positions[row])], evaluation.class_names
    loss = float(evaluation.losses[row])
    picture, small = _picture(example, preprocess)
    return Answer(
        key=example.key,
        file=short_name(example.key),
        picture=picture,
        small=small,
        truth=names[int(evaluation.labels[row])],
        truth_probability=_probability(math.exp(-loss)),
        answer=names[int(evaluation.predicted[row])],
        answer_probability=_probability(float(evaluation.probabilities[row])),
        loss=finite(loss, ".2f"),
    )


def short_name(key: str) -> str:
    """The name of a file, of a long one the beginning and the end."""
    name = key.rpartition("/")[2]
    return name if len(name) <= _NAME else f"{name[: _NAME // 2 - 1]}…{name[-(_NAME // 2) :]}"


def _probability(value: float) -> str:
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.1%}" if value >= 0.001 else f"{value:.1g}"


def finite(value: float, form: str) -> str:
    """``value`` in this form, or that it is not finite."""
    return format(value, form) if math.isfinite(value) else "not finite"


def _picture(example: Example, preprocess: Preprocess) -> tuple[str, bool]:
    """The picture in base64, and whether it is so small that its pixels are to be seen."""
    try:
        image = preprocess.crop(example.read())
    except ZooError:
        return "", False
    small = image.width < _SIDE // 2
    image.thumbnail((_SIDE, _SIDE))
    png = io.BytesIO()
    image.save(png, "PNG", optimize=True)
    return base64.b64encode(png.getvalue()).decode(), small

"""What an evaluation found, as parts of a page: accuracy by class, confusions, the costliest mistakes."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import numpy as np

from ...errors import ZooError
from ...preprocess import Preprocess
from ...report.page import Html, name, paragraph, section, table, text
from ..data import Example
from ..evaluate import ClassAccuracy, Evaluation

LINES = 50
"""How many classes, and how many confusions, are listed; up to so many classes a matrix is drawn."""
COUNTED = 20
"""Up to how many classes the cells of the matrix bear their counts."""
MISTAKES = 32
"""How many of the costliest mistakes are shown."""

_SIDE = 128  # of a picture, in pixels


def classes(found: Evaluation) -> Html:
    """How each class fared, the worst :data:`LINES` of them."""
    worst = worst_first([row for row in found.per_class if row.images])
    head = ("class", "images", "right", "accuracy", "95 % interval", "")
    parts = [table(head, [_class_row(row) for row in worst[:LINES]], numbers=(1, 2, 3, 4))]
    if len(worst) > LINES:
        parts.append(paragraph(f"The {LINES} classes with the lowest accuracy, of {len(worst):,}."))
    if missing := [row.name for row in found.per_class if not row.images]:
        parts.append(paragraph(Html(f"Classes without images here: {names_of(missing)}.")))
    return section("Classes, worst first", *parts)


def worst_first(rows: Sequence[ClassAccuracy]) -> list[ClassAccuracy]:
    """``rows`` by accuracy; among equals the one with more images comes first, those without images come last."""
    return sorted(rows, key=lambda row: (2.0 if row.fraction is None else row.fraction, -row.images))


def names_of(given: Sequence[str], *, most: int = LINES) -> Html:
    """The first ``most`` names in a line."""
    return Html(", ".join([*map(name, given[:most]), *(["..."] if len(given) > most else [])]))


def _class_row(row: ClassAccuracy) -> tuple[object, ...]:
    low, high = row.interval
    at = row.fraction or 0.0
    bar = (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect x="{100 * low:.2f}" width="{100 * (high - low):.2f}" height="10"/>'
        f'<line x1="{100 * at:.2f}" x2="{100 * at:.2f}" y2="10"/></svg>'
    )
    return name(row.name), f"{row.images:,}", f"{row.right:,}", f"{at:.2%}", f"{low:.2%} to {high:.2%}", Html(bar)


def confusions(found: Evaluation) -> Html:
    """Which classes were taken for which: a matrix, or for more than :data:`LINES` classes the most frequent pairs."""
    if len(found.class_names) <= LINES:
        remark = "Rows: what the images are. Columns: what was answered. Colour: by share of the row."
        return section("Confusion matrix", paragraph(remark), _matrix(found))
    rows = _confused(found)
    if not rows:
        return section("Most frequent confusions", paragraph("No class was taken for another."))
    return section(
        "Most frequent confusions", table(("is", "answered", "images", "of the class"), rows, numbers=(2, 3))
    )


def _confused(found: Evaluation) -> list[tuple[object, ...]]:
    answers, names = found.answers, found.class_names
    images = np.bincount(found.labels)
    wrong = answers[answers[:, 0] != answers[:, 1]][:LINES].tolist()
    return [
        (name(names[true]), name(names[said]), f"{count:,}", f"{count / images[true]:.1%}")
        for true, said, count in wrong
    ]


def _matrix(found: Evaluation) -> Html:
    names, table = found.class_names, np.zeros((len(found.class_names),) * 2, np.int64)
    table[found.answers[:, 0], found.answers[:, 1]] = found.answers[:, 2]
    counts = table.tolist()
    counted = len(names) <= COUNTED
    heads = "".join(_label(label, scope="col") for label in names)
    rows = "".join(
        f"<tr>{_label(names[true], scope='row')}{_cells(true, counts[true], names, counted=counted)}</tr>\n"
        for true in range(len(names))
    )
    kind = "confusion" + (" upright" if max(map(len, names)) <= 2 else "") + ("" if counted else " dense")
    head = f"<thead><tr><td></td>{heads}</tr></thead>"
    return Html(f'<div class="wide"><table class="{kind}">{head}\n<tbody>{rows}</tbody></table></div>\n')


def _label(label: str, *, scope: str) -> str:
    return f'<th scope="{scope}" title="{text(label)}">{name(label)}</th>'


def _cells(true: int, counts: Sequence[int], names: Sequence[str], *, counted: bool) -> str:
    """One row of the matrix; the shade is the root of the share, so that a single image can be seen."""
    total = sum(counts)
    cells = []
    for answered, count in enumerate(counts):
        if not count:
            cells.append("<td></td>")
            continue
        mark = ' class="right"' if answered == true else ""
        told = text(f"{names[true]} answered as {names[answered]}: {count:,}")
        shade = f'style="--share: {math.sqrt(count / total):.3f}"'
        cells.append(f'<td{mark} {shade} title="{told}">{count if counted else ""}</td>')
    return "".join(cells)


def mistakes(found: Evaluation, examples: Sequence[Example], preprocess: Preprocess) -> Html:
    """The costliest mistakes as the network saw them, with what they are and what was answered."""
    rows = found.wrong.tolist()
    if not rows:
        return section("Costliest mistakes", paragraph("Every image was answered right."))
    shown = "".join(
        f"<figure>{_picture(examples[int(found.positions[row])], preprocess)}{_caption(found, row)}</figure>\n"
        for row in rows[:MISTAKES]
    )
    counted = f"The {MISTAKES} costliest of {len(rows):,}" if len(rows) > MISTAKES else f"All {len(rows)}"
    remark = f"{counted}, by loss; cropped as the network saw them. In brackets: the probability it gave."
    return section("Costliest mistakes", paragraph(remark), Html(f'<div class="pictures">{shown}</div>\n'))


def _caption(found: Evaluation, row: int) -> str:
    names = found.class_names
    true, answered = name(names[int(found.labels[row])]), name(names[int(found.predicted[row])])
    loss = float(found.losses[row])
    return (
        f"<figcaption>is <b>{true}</b> ({_probability(math.exp(-loss))})<br>answered <b>{answered}</b> "
        f"({_probability(float(found.probabilities[row]))})<br>loss {finite(loss, '.2f')}</figcaption>"
    )


def _probability(value: float) -> str:
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.1%}" if value >= 0.001 else f"{value:.1g}"


def finite(value: float, form: str) -> str:
    """``value`` in this form, or that it is not finite."""
    return format(value, form) if math.isfinite(value) else "not finite"


def _picture(example: Example, preprocess: Preprocess) -> str:
    try:
        seen = preprocess.crop(example.read())
    except ZooError:
        return '<div class="missing">cannot be read</div>'
    kind = ' class="small"' if seen.width < _SIDE // 2 else ""
    seen.thumbnail((_SIDE, _SIDE))
    written = io.BytesIO()
    seen.save(written, "PNG", optimize=True)
    source = f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
    return f'<img{kind} src="{source}" alt="" title="{text(example.key)}">'

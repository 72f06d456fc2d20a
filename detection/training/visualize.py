"""What a detector found, shown: boxes drawn on images, a sheet of them, the page of a run."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageColor, ImageDraw, ImageFont

from fbnetv3_zoo.errors import printable
from fbnetv3_zoo.images.pixels import to_eight_bits
from fbnetv3_zoo.report.environment import describe_machine
from fbnetv3_zoo.report.page import (
    Html,
    entries,
    facts,
    figures,
    name,
    page,
    paragraph,
    section,
    table,
    tiles,
    write_page,
)
from fbnetv3_zoo.report.svg import drawing
from fbnetv3_zoo.utils.atomic_write import replacing

from ..data.faults import in_brief
from .evaluate import AveragePrecision, Detections

if TYPE_CHECKING:
    from .train import DetectionRun

THRESHOLD = 0.5
"""Score from which a detection is drawn, where nothing else is asked for."""
_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")  # Okabe and Ito's


def draw_boxes(
    image: Image.Image, found: Detections, class_names: Sequence[str], *, threshold: float = THRESHOLD, scale: float = 1
) -> Image.Image:
    """``image``, made larger by ``scale``, with box, class and score of all that was found, the best on top.

    Scores below ``threshold`` are left out.
    """
    picture = to_eight_bits(image, "RGB").copy()
    if scale != 1:
        picture = picture.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    width = max(1, round(min(picture.size) / 150))
    font = ImageFont.load_default(max(10.0, min(picture.size) / 25))
    pen = ImageDraw.Draw(picture)
    for box, score, label in reversed(list(zip(scale * found.boxes, found.scores, found.labels, strict=True))):
        if score >= threshold:
            colour = _COLOURS[(int(label) - 1) % len(_COLOURS)]
            pen.rectangle([*map(float, box)], outline=colour, width=width)
            _label(pen, f"{in_brief(class_names[int(label) - 1])} {score:.0%}", box, colour, font)
    return picture


def _label(pen: ImageDraw.ImageDraw, words: str, box: Any, colour: str, font: Any) -> None:
    """Words above the box's upper edge, or below it where the image ends."""
    _, _, width, height = pen.textbbox((0, 0), words, font=font)
    x = max(0.0, min(float(box[0]), pen.im.size[0] - width - 2))
    y = float(box[1]) - height - 2
    y = y if y >= 0 else float(box[1])
    pen.rectangle((x, y, x + width + 2, y + height + 2), fill=colour)
    dark = sum(ImageColor.getrgb(colour)[:3]) < 330
    pen.text((x + 1, y), words, fill="white" if dark else "black", font=font)


def sheet(
    images: Sequence[Image.Image], found: Sequence[Detections], class_names: Sequence[str], *, columns: int = 4,
    side: int = 320,
) -> Image.Image:  # fmt: skip
    """Images with what was found in them, in rows, each fitted into a square of ``side`` pixels."""
    rows = math.ceil(max(1, len(images)) / columns)
    paper = Image.new("RGB", (min(columns, max(1, len(images))) * (side + 8), rows * (side + 8)), "white")
    for n, (image, one) in enumerate(zip(images, found, strict=True)):
        picture = draw_boxes(image, one, class_names, scale=side / max(image.size))
        paper.paste(picture, (n % columns * (side + 8) + 4, n // columns * (side + 8) + 4))
    return paper


def write_detection_report(run: DetectionRun, predictions: Image.Image, facts_of_run: dict[str, object]) -> None:
    """Write ``report.html`` and ``predictions.png`` into the folder of ``run``.

    ``predictions`` is a sheet of validation images with what was found; ``facts_of_run`` names data, recipe and so on.
    """
    with replacing(run.folder / "predictions.png") as temporary:
        predictions.save(temporary, format="PNG")
    best = run.precision
    content = page(
        f"{printable(run.spec.network)} finds {printable(', '.join(run.spec.class_names[:3]))}",
        tiles(
            [
                ("AP50", _share(best.ap50), "boxes that overlap by half"),
                ("AP", _share(best.ap), "mean over overlaps of 0.5 to 0.95 (COCO)"),
                ("AP75", _share(best.ap75), "boxes that overlap by three quarters"),
            ]
        ),
        section("Training", figures(_curves(run))),
        section("By class and size", _by_class(best), _by_size(best)),
        section("Validation images", paragraph(f"Found with a score from {THRESHOLD:.0%} on."), _picture(predictions)),
        section("Run", facts({key: printable(str(value)) for key, value in facts_of_run.items()}), *_faults(run)),
        section("Machine", facts(describe_machine())),
    )
    write_page(run.folder / "report.html", content)


def _curves(run: DetectionRun) -> list[tuple[str, object, object]]:
    from matplotlib.ticker import MaxNLocator

    epochs = [asdict(epoch) for epoch in run.epochs]

    def draw(axes: Any, *, fields: tuple[str, ...], unit: str) -> None:
        for field in fields:
            axes.plot([e["epoch"] for e in epochs], [e[field] for e in epochs], marker=".", label=_NAMES[field])
        axes.set(xlabel="epoch", ylabel=unit)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.2)
        axes.legend()

    precision = drawing("Precision by epoch", partial(draw, fields=("ap50", "ap"), unit="average precision"))
    loss = drawing("Loss by epoch", partial(draw, fields=("train_loss",), unit="sum of four losses"))
    return [
        ("Precision", Html(precision), "on the validation images, of the averaged weights"),
        ("Loss", Html(loss), "while training"),
    ]


_NAMES = {"ap50": "AP50", "ap": "AP", "train_loss": "training"}


def _by_class(found: AveragePrecision) -> Html:
    return table(
        ("class", "AP"), [(name(printable(one)), _share(ap)) for one, ap in found.classes.items()], numbers=(1,)
    )


def _by_size(found: AveragePrecision) -> Html:
    rows = [
        ("small (below 32 x 32 pixels)", found.small),
        ("medium", found.medium),
        ("large (from 96 x 96)", found.large),
    ]
    return table(("objects", "AP"), [(size, _share(ap)) for size, ap in rows], numbers=(1,))


def _faults(run: DetectionRun) -> list[Html]:
    return [paragraph("Annotations that could not be used as they are:"), entries(run.faults)] if run.faults else []


def _picture(image: Image.Image) -> Html:
    written = io.BytesIO()
    image.save(written, format="PNG")
    source = base64.b64encode(written.getvalue()).decode()
    return Html(
        f'<img style="max-width:100%;height:auto" src="data:image/png;base64,{source}" alt="images with boxes">'
    )


def _share(value: float) -> str:
    return "nothing to find" if math.isnan(value) else f"{value:.1%}"

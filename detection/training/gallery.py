"""The validation images that a report shows, with what was found, what is there, and what went wrong."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from PIL import Image

from fbnetv3_zoo.errors import ZooError, printable

from ..data.coco import AnnotatedImage, CocoData, open_image
from .evaluate import Detections
from .mistakes import Outcome, in_words, outcome_of
from .visualize import THRESHOLD, draw_boxes, sheet

SHOWN = 12
"""Most images that are shown."""
_SIDE = 420

Pair = tuple[AnnotatedImage, Detections]


def outcomes(validation: CocoData, detections: Sequence[Detections]) -> list[Outcome]:
    """What became of the objects of each image."""
    pairs = zip(validation.samples, detections, strict=True)
    return [outcome_of(sample, found, threshold=THRESHOLD) for sample, found in pairs]


def gallery(
    validation: CocoData, detections: Sequence[Detections], results: Sequence[Outcome]
) -> list[dict[str, object]]:
    """The images with most mistakes first: file name, picture (JPEG, base64; None if it cannot be read), mistakes."""
    ordered = sorted(range(len(results)), key=lambda n: -results[n].mistakes)
    return [
        {
            "name": printable(validation.samples[n].path.name),
            "picture": _picture((validation.samples[n], detections[n]), validation.class_names),
            "mistakes": in_words([results[n]], validation.class_names) or ["no mistake"],
        }
        for n in ordered[:SHOWN]
    ]


def evenly_drawn(validation: CocoData, detections: Sequence[Detections]) -> Image.Image:
    """A sheet of images at equal distances in the data; those that cannot be read, which were named, are left out."""
    pairs = list(zip(validation.samples, detections, strict=True))
    readable = []
    for sample, found in pairs[:: max(1, len(pairs) // SHOWN)][:SHOWN]:
        if (image := _opened(sample)) is not None:
            readable.append((image, found, sample))
    images, answers, truths = zip(*readable, strict=True) if readable else ((), (), ())
    return sheet(images, answers, validation.class_names, truths=truths)


def _picture(pair: Pair, class_names: Sequence[str]) -> str | None:
    sample, found = pair
    if (image := _opened(sample)) is None:
        return None
    drawn = draw_boxes(image, found, class_names, truth=sample, scale=_SIDE / max(image.size))
    content = io.BytesIO()
    drawn.save(content, format="JPEG", quality=88)
    return base64.b64encode(content.getvalue()).decode()


def _opened(sample: AnnotatedImage) -> Image.Image | None:
    try:
        return open_image(sample)
    except ZooError:
        return None

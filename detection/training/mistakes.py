"""What became of the objects of an image: found, missed, taken for another class; and of the false alarms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torchvision.ops import box_iou

from fbnetv3_zoo.errors import counted

from ..data.coco import AnnotatedImage
from ..data.faults import in_brief
from .evaluate import Detections

OVERLAP = 0.5
"""Intersection over union from which a detection is at the place of an object, as for AP50."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Labels of the objects of an image that were ``found`` and ``missed``, and of detections that are no object.

    ``confused`` has label and found label of objects taken for another class, ``alarms`` the detections where there is
    no object, ``repeated`` those of an object that was found already.
    """

    found: tuple[int, ...] = ()
    missed: tuple[int, ...] = ()
    confused: tuple[tuple[int, int], ...] = ()
    alarms: tuple[int, ...] = ()
    repeated: tuple[int, ...] = ()

    @property
    def mistakes(self) -> int:
        """Number of objects and detections that are not right."""
        return len(self.missed) + len(self.confused) + len(self.alarms) + len(self.repeated)


def outcome_of(sample: AnnotatedImage, found: Detections, *, threshold: float) -> Outcome:
    """What became of the objects of ``sample`` in detections with a score from ``threshold`` on, the best first.

    An object goes to the best detection of its class that overlaps it by :data:`OVERLAP`, then to one of another class.
    Detections of what is a crowd do not count.
    """
    clear = [n for n in np.argsort(-found.scores, kind="stable").tolist() if found.scores[n] >= threshold]
    overlaps = _overlaps(found.boxes, sample.boxes)
    objects = np.flatnonzero(~sample.crowd).tolist()
    same = {n: [m for m in objects if sample.labels[m] == found.labels[n]] for n in clear}
    right = _assigned(overlaps, clear, same)
    others = [n for n in clear if n not in right]
    left = [m for m in objects if m not in right.values()]
    wrong = _assigned(overlaps, others, dict.fromkeys(others, left))
    rest = [n for n in others if n not in wrong and not _in_crowd(sample, found, n)]
    repeated = [n for n in rest if any(overlaps[n, m] >= OVERLAP for m in same[n])]
    return Outcome(
        found=tuple(int(sample.labels[m]) for m in right.values()),
        missed=tuple(int(sample.labels[m]) for m in left if m not in wrong.values()),
        confused=tuple((int(sample.labels[m]), int(found.labels[n])) for n, m in wrong.items()),
        alarms=tuple(int(found.labels[n]) for n in rest if n not in repeated),
        repeated=tuple(int(found.labels[n]) for n in repeated),
    )


def in_words(outcomes: Sequence[Outcome], class_names: Sequence[str]) -> list[str]:
    """Each kind of mistake with its number, the most frequent first: "dog missed: 7", "dog taken for cat: 2"."""
    names = [in_brief(name) for name in class_names]
    kinds: Counter[str] = Counter()
    for one in outcomes:
        kinds.update(f"{names[label - 1]} missed" for label in one.missed)
        kinds.update(f"{names[label - 1]} taken for {names[answer - 1]}" for label, answer in one.confused)
        kinds.update(f"{names[label - 1]} found where there is none" for label in one.alarms)
        kinds.update(f"{names[label - 1]} found more than once" for label in one.repeated)
    return [f"{kind}: {number:,}" for kind, number in kinds.most_common()]


def in_short(outcomes: Sequence[Outcome]) -> str:
    """The numbers of objects found and missed, and of false alarms."""
    found, missed, confused, alarms = (
        sum(len(getattr(one, field)) for one in outcomes) for field in ("found", "missed", "confused", "alarms")
    )
    objects = counted(found + missed + confused, "object")
    return (
        f"{found:,} of {objects} found, {confused:,} taken for another class, {missed:,} missed; "
        f"{counted(alarms, 'false alarm')}"
    )


def _overlaps(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    overlaps: npt.NDArray[np.float32] = box_iou(torch.from_numpy(one), torch.from_numpy(other)).numpy()
    return overlaps


def _assigned(
    overlaps: npt.NDArray[np.float32], detections: Sequence[int], candidates: dict[int, list[int]]
) -> dict[int, int]:
    """For each of ``detections`` in turn, the nearest of its ``candidates`` that is still free, if it overlaps."""
    assigned: dict[int, int] = {}
    for n in detections:
        free = [m for m in candidates[n] if m not in assigned.values()]
        if free and overlaps[n, (nearest := max(free, key=lambda m: float(overlaps[n, m])))] >= OVERLAP:
            assigned[n] = nearest
    return assigned


def _in_crowd(sample: AnnotatedImage, found: Detections, n: int) -> bool:
    """Whether at least half of a detection lies in a crowd of its class."""
    crowds = sample.boxes[sample.crowd & (sample.labels == found.labels[n])]
    box = found.boxes[n]
    sides = np.minimum(crowds[:, 2:], box[2:]) - np.maximum(crowds[:, :2], box[:2])
    area = float((box[2:] - box[:2]).prod())
    return bool((sides.clip(min=0).prod(1) >= OVERLAP * area).any())

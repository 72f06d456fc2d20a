"""A whole detector for one image, in operators that torch.export takes with every size free.

It computes what torchvision's detector does, from the parts of one, but for what depends on Python numbers there:
resizing, the choice of proposals and suppression. It only runs exported: suppression exists as an ONNX operator alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import roi_align

_MOVED_APART = 1000  # torchvision's batched_nms, on a CPU: up to so many boxes it moves groups apart, more it separates


class EndToEnd(nn.Module):
    """One image (3, height, width) to boxes (detections, 4) in its pixels, labels and scores, best first.

    Inside, boxes are x0, y0, x1, y1 in the scaled image; sides and sizes are (height, width).

    Args:
        detector: in evaluation mode, on the CPU; ``roi_heads.box_roi_pool`` must have its scales set.
    """

    def __init__(self, detector: FasterRCNN) -> None:
        super().__init__()
        self.transform, self.backbone = detector.transform, detector.backbone
        self.rpn, self.heads = detector.rpn, detector.roi_heads
        self.box_head = BoxOutputs(self.heads.box_head, self.heads.box_predictor)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: D102
        (image,) = inputs
        sides = torch.stack([torch.scalar_tensor(side, dtype=torch.float64) for side in image.shape[1:]])
        limits = torch.tensor([self.transform.min_size[-1], self.transform.max_size], dtype=torch.float64)
        scaled = torch.floor(sides * (limits / sides.sort().values).min())  # in double precision, as Python rounds
        images = self._images(image, scaled)
        maps = self.backbone(images)
        found = self._detect(maps, self._propose(images, [*maps.values()], scaled), scaled)
        return found.boxes * (sides.float() / scaled.float()).flip(0).repeat(2), found.groups, found.scores

    def _images(self, image: Tensor, scaled: Tensor) -> Tensor:
        """The scaled image as a batch of one, padded to whole tiles."""
        (height, width), tile = _whole_numbers(scaled), self.transform.size_divisible
        rows, columns = _whole_numbers(torch.ceil(scaled / tile))
        colours = self.transform.normalize(image)
        resized = F.interpolate(colours[None], size=(height, width), mode="bilinear", align_corners=False)
        return F.pad(resized, (0, tile * columns - width, 0, tile * rows - height))

    def _propose(self, images: Tensor, maps: list[Tensor], scaled: Tensor) -> Tensor:
        """The boxes (regions, 4) to look at."""
        rpn = self.rpn
        logits, deltas = rpn.head(maps)
        (anchors,) = rpn.anchor_generator(ImageList(images, [(0, 0)]), maps)
        scores, places, levels, first = [], [], [], 0
        for level, one in enumerate(logits):
            score, place = (x[: rpn.pre_nms_top_n()] for x in _by_anchor(one, 1).flatten().sort(descending=True))
            scores.append(score.sigmoid())
            places.append(place + first)
            levels.append(torch.full_like(place, level))
            first += one.shape[1] * one.shape[2] * one.shape[3]
        place = torch.cat(places)
        boxes = rpn.box_coder.decode_single(torch.cat([_by_anchor(one, 4) for one in deltas])[place], anchors[place])
        found = _Candidates(_clipped(boxes, scaled), torch.cat(scores), torch.cat(levels))
        found = found.where(_large(found.boxes, rpn.min_size) & (found.scores >= rpn.score_thresh))
        return found.best(rpn.post_nms_top_n(), groups=len(maps), overlap=rpn.nms_thresh).boxes

    def _pool(self, maps: dict[str, Tensor], regions: Tensor) -> Tensor:
        """Regions as maps (regions, channels, pooled, pooled), each taken from the map that suits its size."""
        pool = self.heads.box_roi_pool
        levels = pool.map_levels([regions])
        numbered = torch.cat([torch.zeros_like(regions[:, :1]), regions], 1)  # all of image 0
        places = [torch.nonzero(levels == level).flatten() for level in range(len(pool.scales))]
        pooled = [
            roi_align(maps[name], numbered[place], pool.output_size, scale, pool.sampling_ratio)
            for name, place, scale in zip(pool.featmap_names, places, pool.scales, strict=True)
        ]
        return torch.cat(pooled)[torch.cat(places).argsort()]

    def _detect(self, maps: dict[str, Tensor], regions: Tensor, scaled: Tensor) -> _Candidates:
        heads, pooled = self.heads, self._pool(maps, regions)
        torch._check(pooled.shape[0] > 0)
        logits, deltas = self.box_head(pooled)
        classes = logits.shape[1]
        boxes = heads.box_coder.decode_single(deltas, regions).reshape(-1, classes, 4)[:, 1:].reshape(-1, 4)
        labels = torch.arange(1, classes).expand(regions.shape[0], -1).reshape(-1)
        found = _Candidates(_clipped(boxes, scaled), logits.softmax(-1)[:, 1:].reshape(-1), labels)
        found = found.where((found.scores > heads.score_thresh) & _large(found.boxes, 1e-2))
        return found.best(heads.detections_per_img, groups=classes, overlap=heads.nms_thresh)


class BoxOutputs(nn.Module):
    """Box head and predictor as one: pooled regions to logits (regions, 1 + classes) and deltas (regions, 4 x that)."""

    def __init__(self, head: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.head, self.predictor = head, predictor

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        logits, deltas = self.predictor(self.head(*inputs))
        return logits, deltas


class _Candidates(NamedTuple):
    """Boxes (number, 4) with their scores and the group, level or label, that each competes in."""

    boxes: Tensor
    scores: Tensor
    groups: Tensor

    def where(self, chosen: Tensor) -> _Candidates:
        """Those at ``chosen``, a mask or indices."""
        return _Candidates(self.boxes[chosen], self.scores[chosen], self.groups[chosen])

    def best(self, number: int, *, groups: int, overlap: float) -> _Candidates:
        """The ``number`` best, best first, without what overlaps a better one of its group by more than ``overlap``.

        A few boxes are moved apart by group first, as torchvision does: the rounding that this brings then decides
        near ties in the same way.
        """
        few = torch.scalar_tensor(self.boxes.shape[0]) <= _MOVED_APART
        farthest = torch.cat([self.boxes.flatten(), self.boxes.new_zeros(1)]).max()
        moved = self.boxes + (self.groups * ((farthest + 1) * few))[:, None]
        kept = self.where(
            torch.ops.fbnetv3_zoo.suppress(moved, self.scores, self.groups, groups, overlap).sort().values
        )
        return kept.where(kept.scores.sort(descending=True).indices[:number])


def _whole_numbers(values: Tensor) -> list[int]:
    found: list[int] = values.to(torch.int64).tolist()
    for value in found:
        torch._check(value >= 1)
    return found


def _by_anchor(x: Tensor, values: int) -> Tensor:
    """The map of one image, with so many values an anchor, as (anchors, values) in the order of the anchors."""
    return x.reshape(-1, values, *x.shape[2:]).permute(2, 3, 0, 1).reshape(-1, values)


def _clipped(boxes: Tensor, size: Tensor) -> Tensor:
    return torch.minimum(boxes.clamp(min=0), size.flip(0).repeat(2).to(boxes.dtype))


def _large(boxes: Tensor, side: float) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0] >= side) & (boxes[:, 3] - boxes[:, 1] >= side)


def _suppressed(boxes: Tensor, scores: Tensor, groups: Tensor, number: int, overlap: float) -> Tensor:
    return groups.new_empty(torch.library.get_ctx().new_dynamic_size())


torch.library.define(
    "fbnetv3_zoo::suppress", "(Tensor boxes, Tensor scores, Tensor groups, int number, float overlap) -> Tensor"
)
torch.library.register_fake("fbnetv3_zoo::suppress", _suppressed)


def _suppress(boxes: Any, scores: Any, groups: Any, number: int, overlap: float) -> Any:
    """Suppression within each of ``number`` groups: the indices of the boxes kept. Scores must not be negative."""
    from onnxscript import opset18

    op: Any = opset18
    own = op.Equal(op.Unsqueeze(groups, [0]), op.Unsqueeze(op.Range(0, number, 1), [1]))
    scores = op.Unsqueeze(op.Where(own, scores, -1.0), [0])
    kept = op.NonMaxSuppression(op.Unsqueeze(boxes, [0]), scores, torch.iinfo(torch.int64).max, overlap, -0.5)
    return op.Gather(kept, 2, axis=1)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {torch.ops.fbnetv3_zoo.suppress.default: _suppress}
"""How :func:`torch.onnx.export` writes the operator that it does not know."""

"""A whole detector for one image, written so that torch.export traces it with dynamic sizes.

It computes what torchvision's detector does, from the same modules, but replaces what depends on Python numbers there:
resizing, selecting proposals, and suppression. It runs only when exported: suppression is an ONNX operator alone.
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

_MOVED_APART = 1000  # torchvision's batched_nms on a CPU shifts groups apart for up to this many boxes, else loops


class EndToEnd(nn.Module):
    """One image (3, height, width) to boxes (detections, 4) in its pixels, labels and scores, best first.

    Internally, boxes are x0, y0, x1, y1 in the scaled image; sizes are (height, width).

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
        best = self._detect(maps, self._propose(images, [*maps.values()], scaled), scaled)
        return best.boxes * (sides.float() / scaled.float()).flip(0).repeat(2), best.groups, best.scores

    def _images(self, image: Tensor, scaled: Tensor) -> Tensor:
        """The scaled image as a batch of one, padded to a multiple of ``size_divisible``."""
        (height, width), tile = _whole_numbers(scaled), self.transform.size_divisible
        rows, columns = _whole_numbers(torch.ceil(scaled / tile))
        colors = self.transform.normalize(image)
        resized = F.interpolate(colors[None], size=(height, width), mode="bilinear", align_corners=False)
        return F.pad(resized, (0, tile * columns - width, 0, tile * rows - height))

    def _propose(self, images: Tensor, maps: list[Tensor], scaled: Tensor) -> Tensor:
        """The proposed boxes (regions, 4)."""
        rpn = self.rpn
        logits, deltas = rpn.head(maps)
        (anchors,) = rpn.anchor_generator(ImageList(images, [(0, 0)]), maps)
        scores, indices, levels, first = [], [], [], 0
        for level, one in enumerate(logits):
            score, index = (x[: rpn.pre_nms_top_n()] for x in _by_anchor(one, 1).flatten().sort(descending=True))
            scores.append(score.sigmoid())
            indices.append(index + first)
            levels.append(torch.full_like(index, level))
            first += one.shape[1] * one.shape[2] * one.shape[3]
        index = torch.cat(indices)
        boxes = rpn.box_coder.decode_single(torch.cat([_by_anchor(one, 4) for one in deltas])[index], anchors[index])
        candidates = _Candidates(_clipped(boxes, scaled), torch.cat(scores), torch.cat(levels))
        candidates = candidates.where(_large(candidates.boxes, rpn.min_size) & (candidates.scores >= rpn.score_thresh))
        return candidates.best(rpn.post_nms_top_n(), groups=len(maps), overlap=rpn.nms_thresh).boxes

    def _pool(self, maps: dict[str, Tensor], regions: Tensor) -> Tensor:
        """Pooled regions (regions, channels, pooled, pooled), each from the map that suits its size."""
        pool = self.heads.box_roi_pool
        levels = pool.map_levels([regions])
        numbered = torch.cat([torch.zeros_like(regions[:, :1]), regions], 1)  # all of image 0
        indices = [torch.nonzero(levels == level).flatten() for level in range(len(pool.scales))]
        pooled = [
            roi_align(maps[name], numbered[index], pool.output_size, scale, pool.sampling_ratio)
            for name, index, scale in zip(pool.featmap_names, indices, pool.scales, strict=True)
        ]
        return torch.cat(pooled)[torch.cat(indices).argsort()]

    def _detect(self, maps: dict[str, Tensor], regions: Tensor, scaled: Tensor) -> _Candidates:
        heads, pooled = self.heads, self._pool(maps, regions)
        torch._check(pooled.shape[0] > 0)
        logits, deltas = self.box_head(pooled)
        classes = logits.shape[1]
        boxes = heads.box_coder.decode_single(deltas, regions).reshape(-1, classes, 4)[:, 1:].reshape(-1, 4)
        labels = torch.arange(1, classes).expand(regions.shape[0], -1).reshape(-1)
        candidates = _Candidates(_clipped(boxes, scaled), logits.softmax(-1)[:, 1:].reshape(-1), labels)
        candidates = candidates.where((candidates.scores > heads.score_thresh) & _large(candidates.boxes, 1e-2))
        return candidates.best(heads.detections_per_img, groups=classes, overlap=heads.nms_thresh)


class BoxOutputs(nn.Module):
    """Box head and predictor: pooled regions to logits (regions, 1 + classes) and deltas (regions, 4 x that)."""

    def __init__(self, head: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.head, self.predictor = head, predictor

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        logits, deltas = self.predictor(self.head(*inputs))
        return logits, deltas


class _Candidates(NamedTuple):
    """Boxes (number, 4) with their scores and groups (level or label), within which they are suppressed."""

    boxes: Tensor
    scores: Tensor
    groups: Tensor

    def where(self, selection: Tensor) -> _Candidates:
        """Those at ``selection``, a mask or indices."""
        return _Candidates(self.boxes[selection], self.scores[selection], self.groups[selection])

    def best(self, number: int, *, groups: int, overlap: float) -> _Candidates:
        """The ``number`` best, best first, after non-maximum suppression within groups at IoU ``overlap``.

        Small numbers of boxes are shifted apart by group first, as in torchvision, so that rounding decides near ties
        in the same way.
        """
        few = torch.scalar_tensor(self.boxes.shape[0]) <= _MOVED_APART
        farthest = torch.cat([self.boxes.flatten(), self.boxes.new_zeros(1)]).max()
        moved = self.boxes + (self.groups * ((farthest + 1) * few))[:, None]
        remaining = self.where(
            torch.ops.fbnetv3_zoo.suppress(moved, self.scores, self.groups, groups, overlap).sort().values
        )
        return remaining.where(remaining.scores.sort(descending=True).indices[:number])


def _whole_numbers(values: Tensor) -> list[int]:
    numbers: list[int] = values.to(torch.int64).tolist()
    for number in numbers:
        torch._check(number >= 1)
    return numbers


def _by_anchor(x: Tensor, values: int) -> Tensor:
    """A map of one image with ``values`` per anchor as (anchors, values), in the order of the anchors."""
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
    """Indices of the boxes left by suppression within each of ``number`` groups. Scores must not be negative."""
    from onnxscript import opset18

    op: Any = opset18
    in_group = op.Equal(op.Unsqueeze(groups, [0]), op.Unsqueeze(op.Range(0, number, 1), [1]))
    scores = op.Unsqueeze(op.Where(in_group, scores, -1.0), [0])
    selected = op.NonMaxSuppression(op.Unsqueeze(boxes, [0]), scores, torch.iinfo(torch.int64).max, overlap, -0.5)
    return op.Gather(selected, 2, axis=1)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {torch.ops.fbnetv3_zoo.suppress.default: _suppress}
"""The ONNX translation of the custom operator, for :func:`torch.onnx.export`."""

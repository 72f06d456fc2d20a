"""Checkpoints of the published detectors, in the layout of the public zoo (project d2go), for the torchvision model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.weights.convert import official_block, rename
from fbnetv3_zoo.weights.torch_checkpoint import read_any

from .detector import Detector
from .presets import find_detector

_UNUSED = ("pixel_mean", "pixel_std", "proposal_generator.anchor_generator.cell_anchors.")
_LAYERS = {
    "proposal_generator.rpn_head.rpn_regressor.cls_logits": "rpn.head.logits",
    "proposal_generator.rpn_head.rpn_regressor.bbox_pred": "rpn.head.deltas",
    "roi_heads.box_predictor.cls_score": "roi_heads.box_predictor.logits",
    "roi_heads.box_predictor.bbox_pred": "roi_heads.box_predictor.deltas",
}


def load_published(model: FasterRCNN, detector: str, path: str | Path) -> None:
    """Load a checkpoint of the public zoo into ``model``, built by ``faster_rcnn_c4(detector, ...)``.

    The file is a dict with ``model`` (``.pth``, read by another process under limits) or a ``.safetensors`` file. It
    must match exactly. Differences between the two libraries are converted: the published networks take BGR images,
    have the background as the last class, and order the anchors at a pixel by size first, torchvision by shape first.
    Raises :class:`ZooError` if the file cannot be read or does not match; the model is then unchanged.
    """
    names = dict(published_names(find_detector(detector)))
    tensors = {name: tensor for name, tensor in read_any(path).tensors.items() if not name.startswith(_UNUSED)}
    try:
        renamed = rename(tensors, names, model.state_dict(), f"{detector} in the public layout")
    except KeyError as error:
        raise ZooError(f"model has no {error.args[0]}; build it with faster_rcnn_c4({detector!r}, ...)") from None
    except ZooError as error:
        raise ZooError(f"{path}: {error}") from None
    sizes, shapes = _anchors(model)
    model.load_state_dict(_to_torchvision(renamed, sizes, shapes))


def published_names(detector: Detector) -> Iterator[tuple[str, str]]:
    """Pairs (public name, name in the torchvision model) for every tensor of a published detector."""
    for block in detector.trunk_blocks:
        before = f"backbone.body.trunk{block.stage}.fbnetv2_{block.stage}_{block.index}"
        for theirs, ours in official_block(block, before):
            yield theirs, f"backbone.trunk.stages.{block.stage}.{block.index}.{ours}"
    for block in detector.rpn_blocks:
        before = f"proposal_generator.rpn_head.rpn_feature.0.fbnetv2_0_{block.index}"
        for theirs, ours in official_block(block, before):
            yield theirs, f"rpn.head.feature.0.{block.index}.{ours}"
    for block in detector.box_blocks:
        for theirs, ours in official_block(block, f"roi_heads.box_head.roi_box_conv.0.fbnetv2_0_{block.index}"):
            yield theirs, f"roi_heads.box_head.stages.0.{block.index}.{ours}"
    for theirs, ours in _LAYERS.items():
        yield from ((f"{theirs}.{tensor}", f"{ours}.{tensor}") for tensor in ("weight", "bias"))


def _anchors(model: FasterRCNN) -> tuple[int, int]:
    generator = model.rpn.anchor_generator
    return len(generator.sizes[0]), len(generator.aspect_ratios[0])


def _to_torchvision(tensors: Mapping[str, Tensor], sizes: int, shapes: int) -> dict[str, Tensor]:
    """``tensors`` for RGB images, with the background first and anchors in torchvision's order."""
    converted = dict(tensors)
    stem = "backbone.trunk.stages.0.0.conv.weight"
    converted[stem] = converted[stem].flip(1)
    order = torch.arange(sizes * shapes).reshape(sizes, shapes).T.flatten()
    for tensor in ("weight", "bias"):
        logits, deltas = converted[f"rpn.head.logits.{tensor}"], converted[f"rpn.head.deltas.{tensor}"]
        converted[f"rpn.head.logits.{tensor}"] = logits[order]
        converted[f"rpn.head.deltas.{tensor}"] = deltas.reshape(-1, 4, *deltas.shape[1:])[order].flatten(0, 1)
        scores = f"roi_heads.box_predictor.logits.{tensor}"
        converted[scores] = converted[scores].roll(1, 0)
    return converted

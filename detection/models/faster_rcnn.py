"""Detectors on torchvision alone: Faster R-CNN with a conv4 backbone (C4) or a feature pyramid (FPN), Mask R-CNN.

torchvision's conventions apply: a model takes a list of RGB images (3, height, width) in [0, 1] of any size and, in
training, targets with boxes (x0, y0, x1, y1) in pixels and labels starting at 1; label 0 is the background.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.poolers import LevelMapper

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.arch.torchvision_arch import is_torchvision
from fbnetv3_zoo.errors import ZooError, check_number, check_type, check_whole
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.models.fbnet import FBNet

from .detector import split
from .modules import BoxHead, BoxPredictor, RegionHead, Trunk, freeze_norms, freeze_stages, take_weights
from .presets import DETECTORS

_PYRAMID = (4, 8, 16, 32)
_PUBLISHED_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
_PUBLISHED_STD = (1 / 255, 1 / 255, 1 / 255)

# Limits for settings read from a file: far more than is useful, far less than would exhaust memory.
_MOST = {
    "min_size": 10_000, "max_size": 10_000, "proposals": 100_000, "proposals_in_training": 100_000,
    "regions_in_training": 100_000, "pooled": 64, "detections": 100_000,
}  # fmt: skip
_MOST_ANCHORS = 100


@dataclass(frozen=True)
class RCNNSettings:
    """The settings of a detector besides its network: image size, anchors, proposals, detections.

    Images are scaled so that the shorter side has ``min_size`` pixels and the longer at most ``max_size``. Anchors have
    the area of a square of each of ``anchor_sizes`` pixels, in each of ``aspect_ratios`` (height / width).
    ``proposals`` are kept after non-maximum suppression in inference, ``proposals_in_training`` in training; each is
    pooled to ``pooled`` x ``pooled``, and ``regions_in_training`` are sampled per image for the loss. Anchors, pooling
    and training follow the published detectors, the 75 proposals the paper (FBNetV3, section 5.3). A detector returns
    at most ``detections`` boxes, the best with a score above ``score_threshold``. docs/detection.md has a table.
    """

    FORMAT: ClassVar[str] = "settings"

    min_size: int = 800
    max_size: int = 1333
    anchor_sizes: tuple[int, ...] = (32, 64, 96, 128, 160)
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    proposals: int = 75
    proposals_in_training: int = 2000
    regions_in_training: int = 512
    pooled: int = 6
    score_threshold: float = 0.05
    detections: int = 100

    def __post_init__(self) -> None:
        for field, most in _MOST.items():
            check_whole(f"RCNNSettings.{field}", getattr(self, field), at_most=most)
        for field, largest in (("anchor_sizes", _MOST["max_size"]), ("aspect_ratios", 100)):
            values = getattr(self, field)
            check_type(f"RCNNSettings.{field}", values, tuple, "a tuple of numbers")
            if not 1 <= len(values) <= _MOST_ANCHORS:
                raise ZooError(f"RCNNSettings.{field} has {len(values)} values; give 1 to {_MOST_ANCHORS}")
            for number, value in enumerate(values):
                check_number(f"RCNNSettings.{field}[{number}]", value, at_least=0.01, at_most=largest)
        check_number("RCNNSettings.score_threshold", self.score_threshold, at_least=0, at_most=1)

    def of_size(self, side: int) -> RCNNSettings:
        """These settings for images whose shorter side has ``side`` pixels.

        Lengths, anchors too, change in proportion, the numbers of regions in training with the area, down to 300
        proposals and 64 regions: a smaller map has fewer places for them.
        """
        factor = side / self.min_size
        return replace(
            self, min_size=side, max_size=round(self.max_size * factor),
            anchor_sizes=tuple(max(1, round(size * factor)) for size in self.anchor_sizes),
            proposals_in_training=self._fewer(self.proposals_in_training, factor**2, least=300),
            regions_in_training=self._fewer(self.regions_in_training, factor**2, least=64),
        )  # fmt: skip

    @staticmethod
    def _fewer(number: int, factor: float, *, least: int) -> int:
        return min(number, max(least, round(number * factor)))

    def _rcnn(self) -> dict[str, Any]:
        return {
            "min_size": self.min_size,
            "max_size": self.max_size,
            "rpn_post_nms_top_n_train": self.proposals_in_training,
            "rpn_post_nms_top_n_test": self.proposals,
            "box_batch_size_per_image": self.regions_in_training,
            "box_score_thresh": self.score_threshold,
            "box_detections_per_img": self.detections,
        }


class Backbone(nn.Module):
    """A trunk with torchvision's backbone interface: an ordered dict of maps and their number of channels."""

    def __init__(self, trunk: Trunk, pyramid: FeaturePyramidNetwork | None = None) -> None:
        super().__init__()
        self.trunk = trunk
        widths = [*trunk.channels.values()]
        self.out_channels = widths[-1]
        if pyramid is not None:
            self.pyramid = pyramid
            self.out_channels = pyramid.layer_blocks[0][0].out_channels

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:  # noqa: D102
        maps = OrderedDict(self.trunk(images))
        pyramid: OrderedDict[str, Tensor] = self.pyramid(maps) if hasattr(self, "pyramid") else maps
        return pyramid


def faster_rcnn_c4(
    model: str | Path | Arch | FBNet, *, num_classes: int, pretrained: bool | str | Path = False, freeze_at: int = 0,
    fixed_norms: bool = False, settings: RCNNSettings = RCNNSettings(),
) -> FasterRCNN:  # fmt: skip
    """Faster R-CNN whose trunk ends at stride 16; the rest of the network is run on every region.

    Args:
        model: a network as in :func:`fbnetv3_zoo.create`, padded symmetrically; one with its weights
            (:class:`fbnetv3_zoo.FBNet`); or a published detector (``"fbnetv3_a_detector"``; a separate family, see
            :data:`fbnetv3_zoo.detection.DETECTORS`).
        num_classes: number of classes, without the background.
        pretrained: ImageNet weights for trunk and box head, as in :func:`fbnetv3_zoo.create`. The checkpoint of a
            published detector is loaded by :func:`fbnetv3_zoo.detection.load_published`.
        freeze_at: number of the trunk's first stages whose weights and statistics are frozen; needs ``pretrained``.
        fixed_norms: freeze the batch norms of trunk and box head; needs ``pretrained``.
        settings: sizes, anchors, numbers of proposals.

    Returns the model in training mode. Raises :class:`ZooError` if the arguments contradict each other.
    """
    check_whole("num_classes", num_classes)
    published = isinstance(model, str) and model in DETECTORS
    _check_frozen(model, pretrained, freeze_at, fixed_norms, published)
    if published:
        detector, source = DETECTORS[str(model)], None
    else:
        source = _source(model, pretrained)
        detector = split(source.arch)
    trunk, head = Trunk(detector.trunk_blocks, (detector.stride,)), BoxHead(detector.box_blocks)
    if source is not None:
        take_weights([trunk.stages, head.stages], source)
    if fixed_norms:
        freeze_norms(trunk)
        freeze_norms(head)
    freeze_stages(trunk, freeze_at)
    anchors = AnchorGenerator((settings.anchor_sizes,), (settings.aspect_ratios,))
    return FasterRCNN(
        Backbone(trunk),
        rpn_anchor_generator=anchors,
        rpn_head=RegionHead(detector.rpn_blocks, anchors.num_anchors_per_location()[0]),
        box_roi_pool=_pool(trunk, settings.pooled, sampling_ratio=0),
        box_head=head,
        box_predictor=BoxPredictor(head.out_channels, num_classes),
        **_colors(source),
        **settings._rcnn(),
    )


def faster_rcnn_fpn(
    model: str | Path | Arch | FBNet, *, num_classes: int, pretrained: bool | str | Path = False, freeze_at: int = 0,
    fixed_norms: bool = False, settings: RCNNSettings = RCNNSettings(proposals=1000),
) -> FasterRCNN:  # fmt: skip
    """Faster R-CNN on a feature pyramid of 256 channels over strides 4 to 32 (arXiv 1612.03144), and a fifth map.

    The arguments are those of :func:`faster_rcnn_c4`; published detectors are not supported. Anchors and pooling in
    ``settings`` are ignored in favor of torchvision's for pyramids (one size per map: 32, 64, 128, 256, 512; 7 x 7).
    """
    backbone, colors = _pyramid(model, pretrained, freeze_at, fixed_norms)
    return FasterRCNN(backbone, 1 + num_classes, **_pyramid_parts(backbone), **colors, **settings._rcnn())


def mask_rcnn_fpn(
    model: str | Path | Arch | FBNet, *, num_classes: int, pretrained: bool | str | Path = False, freeze_at: int = 0,
    fixed_norms: bool = False, settings: RCNNSettings = RCNNSettings(proposals=1000),
) -> MaskRCNN:  # fmt: skip
    """Mask R-CNN (arXiv 1703.06870) on the pyramid of :func:`faster_rcnn_fpn`; targets also need masks."""
    backbone, colors = _pyramid(model, pretrained, freeze_at, fixed_norms)
    return MaskRCNN(
        backbone, 1 + num_classes, mask_roi_pool=_pool(backbone.trunk, 14, sampling_ratio=2),
        **_pyramid_parts(backbone), **colors, **settings._rcnn(),
    )  # fmt: skip


def use_true_strides(pool: MultiScaleRoIAlign) -> None:
    """Set the strides of ``pool`` from the names of its maps.

    torchvision infers them once, from the first image, and gets them wrong if that image is very flat.
    """
    strides = [int(name.removeprefix("stride")) for name in pool.featmap_names]
    levels = [int(math.log2(stride)) for stride in strides]
    pool.scales = [1 / stride for stride in strides]
    pool.map_levels = LevelMapper(levels[0], levels[-1], pool.canonical_scale, pool.canonical_level)


def _pool(trunk: Trunk, size: int, *, sampling_ratio: int) -> MultiScaleRoIAlign:
    pool = MultiScaleRoIAlign([*trunk.channels], size, sampling_ratio)
    use_true_strides(pool)
    return pool


def _source(model: str | Path | Arch | FBNet, pretrained: bool | str | Path) -> FBNet:
    if is_torchvision(model):
        raise ZooError(f"{model}: is a model of torchvision; detectors are built on networks of this project here")
    return model if isinstance(model, FBNet) else create(model, pretrained=pretrained)


def _pyramid(
    model: str | Path | Arch | FBNet, pretrained: bool | str | Path, freeze_at: int, fixed_norms: bool
) -> tuple[Backbone, dict[str, Any]]:
    _check_frozen(model, pretrained, freeze_at, fixed_norms, published=False)
    if isinstance(model, str) and model in DETECTORS:
        raise ZooError(f"{model} has no map of stride 32; use faster_rcnn_c4")
    source = _source(model, pretrained)
    arch = source.arch.with_symmetric_padding()
    blocks = [block for block in arch.blocks if block.stage < arch.trunk_depth]
    trunk = Trunk(blocks, _PYRAMID)
    take_weights([trunk.stages], source)
    if fixed_norms:
        freeze_norms(trunk)
    freeze_stages(trunk, freeze_at)
    pyramid = FeaturePyramidNetwork([*trunk.channels.values()], 256, extra_blocks=LastLevelMaxPool())
    return Backbone(trunk, pyramid), _colors(source)


def _pyramid_parts(backbone: Backbone) -> dict[str, Any]:
    sizes = tuple((size,) for size in (32, 64, 128, 256, 512))
    return {
        "rpn_anchor_generator": AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
        "box_roi_pool": _pool(backbone.trunk, 7, sampling_ratio=2),
    }


def _check_frozen(
    model: object, pretrained: bool | str | Path, freeze_at: int, fixed_norms: bool, published: bool
) -> None:
    if isinstance(model, FBNet) and pretrained is not False:
        raise ZooError(f"{model.arch.name} already has its weights; leave out pretrained")
    if published and pretrained is not False:
        raise ZooError(
            f"{model}: a published detector has no ImageNet weights; load its checkpoint by load_published()"
        )
    if pretrained is False and not isinstance(model, FBNet) and (freeze_at or fixed_norms):
        option = f"freeze_at={freeze_at}" if freeze_at else "fixed_norms"
        raise ZooError(f"{option} would freeze random weights and statistics; give pretrained, or leave it out")


def _colors(source: FBNet | None) -> dict[str, Any]:
    if source is None:
        return {"image_mean": list(_PUBLISHED_MEAN), "image_std": list(_PUBLISHED_STD)}
    return {"image_mean": list(source.preprocess.mean), "image_std": list(source.preprocess.std)}

"""detectron2's side: backbones, RPN head and box head under its registries, and their keys in its configuration.

:func:`add_fbnetv3_config` is all that a program of one's own calls. detectron2's unmodified tools call it themselves
when the environment variable ``DETECTRON2_ENV_MODULE`` names :mod:`fbnetv3_zoo.detection.d2_environment`. Needs
detectron2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone, build_anchor_generator
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.proposal_generator.rpn import RPN_HEAD_REGISTRY
from detectron2.modeling.roi_heads import ROI_BOX_HEAD_REGISTRY
from torch import Tensor, nn

from fbnetv3_zoo.arch import Block
from fbnetv3_zoo.detection.detector import Detector, split
from fbnetv3_zoo.detection.modules import BoxHead, RegionHead, Trunk, freeze_norms, freeze_stages, take_weights
from fbnetv3_zoo.detection.published import DETECTORS
from fbnetv3_zoo.errors import ZooError, nearest
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.model import FBNet
from fbnetv3_zoo.zoo import find_arch

Norm = Literal["BN", "SyncBN", "FrozenBN"]
_PYRAMID = (4, 8, 16, 32)
_CONFIGS = Path(__file__).with_name("configs")


def add_fbnetv3_config(cfg: CfgNode) -> None:
    """Register the parts with detectron2 and add ``MODEL.FBNETV3`` with its defaults to ``cfg``.

    ``NAME``: a network as of :func:`fbnetv3_zoo.create`, or a published detector. ``PRETRAINED``: ImageNet weights for
    trunk and box head: ``"true"`` for the published ones, a tag, a path, an address; empty for none. ``NORM``: BN,
    SyncBN, or FrozenBN, which needs weights. A second call changes nothing.
    """
    register()
    if "FBNETV3" not in cfg.MODEL:
        cfg.MODEL.FBNETV3 = CfgNode({"NAME": "fbnetv3_a", "PRETRAINED": "", "NORM": "BN"})


def config_file(name: str) -> str:
    """The path of a shipped configuration, such as ``fbnetv3_a_c4``: for ``cfg.merge_from_file``, ``--config-file``."""
    files = {path.stem: path for path in sorted(_CONFIGS.glob("fbnetv3_*.yaml"))}
    if name not in files:
        raise ZooError(f"unknown configuration {name!r}{nearest(name, files)}; there are {', '.join(files)}")
    return str(files[name])


def register() -> None:
    """Enter ``build_fbnetv3_backbone``, ``build_fbnetv3_fpn_backbone``, ``FBNetV3RPNHead`` and ``FBNetV3BoxHead``."""
    entries: tuple[tuple[Any, Any], ...] = (
        (BACKBONE_REGISTRY, build_fbnetv3_backbone),
        (BACKBONE_REGISTRY, build_fbnetv3_fpn_backbone),
        (RPN_HEAD_REGISTRY, FBNetV3RPNHead),
        (ROI_BOX_HEAD_REGISTRY, FBNetV3BoxHead),
    )
    for registry, entry in entries:
        if entry.__name__ not in registry:
            registry.register(entry)


class FBNetV3Backbone(Backbone):  # type: ignore[misc]
    """A trunk as a backbone of detectron2: maps named ``stride4``, ``stride8`` ... of ceil(side / stride) pixels.

    Args:
        blocks: the trunk's blocks, padded symmetrically.
        strides: which maps.
        source: a network whose weights the blocks take.
        freeze_at: so many of the first stages keep their weights and statistics.
        norm: what becomes of the batch norms.
    """

    def __init__(
        self, blocks: Sequence[Block], strides: Sequence[int], *, source: FBNet | None = None, freeze_at: int = 0,
        norm: Norm = "BN",
    ) -> None:  # fmt: skip
        super().__init__()
        self.trunk = Trunk(blocks, strides)
        if source is not None:
            take_weights([self.trunk.stages], source)
        self.trunk = _normed(self.trunk, norm)
        freeze_stages(self.trunk, freeze_at)
        self._shapes = {
            name: ShapeSpec(channels=width, stride=stride)
            for stride, (name, width) in zip(strides, self.trunk.channels.items(), strict=True)
        }

    def forward(self, images: Tensor) -> Mapping[str, Tensor]:  # noqa: D102
        maps: Mapping[str, Tensor] = self.trunk(images)
        return maps

    def output_shape(self) -> Mapping[str, ShapeSpec]:
        """Channels and stride of every map."""
        return dict(self._shapes)

    @property
    def size_divisibility(self) -> int:
        """0: any image size will do. A pyramid on top states its own."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """None, for newer releases of detectron2, which read this."""
        return {}


def build_fbnetv3_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FBNetV3Backbone:
    """The trunk up to stride 16, for C4 (``MODEL.BACKBONE.NAME``)."""
    detector, source = _network(cfg)
    _check_channels(detector, input_shape)
    return _backbone(cfg, detector.trunk_blocks, (detector.stride,), source)


def build_fbnetv3_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """A feature pyramid over strides 4 to 32 (``MODEL.BACKBONE.NAME``); widths and norm as of ``MODEL.FPN``."""
    detector, source = _network(cfg)
    if source is None:
        raise ZooError(f"{detector.name} has no map of stride 32; use build_fbnetv3_backbone")
    _check_channels(detector, input_shape)
    arch = source.arch.with_symmetric_padding()
    blocks = [block for block in arch.blocks if block.stage < arch.trunk_depth]
    return FPN(
        bottom_up=_backbone(cfg, blocks, _PYRAMID, source),
        in_features=[f"stride{stride}" for stride in _PYRAMID],
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


class FBNetV3RPNHead(RegionHead):
    """The trunk's last row again, then logits and deltas (``MODEL.RPN.HEAD_NAME``)."""

    def __init__(self, cfg: CfgNode, input_shape: Sequence[ShapeSpec]) -> None:
        detector, _ = _network(cfg, weights=False)
        anchors: int = build_anchor_generator(cfg, input_shape).num_anchors[0]
        super().__init__(detector.rpn_blocks, anchors)
        self.feature = _normed(self.feature, "BN" if cfg.MODEL.FBNETV3.NORM == "FrozenBN" else cfg.MODEL.FBNETV3.NORM)


class FBNetV3BoxHead(BoxHead):
    """What follows the trunk in the network, on every region (``MODEL.ROI_BOX_HEAD.NAME``)."""

    def __init__(self, cfg: CfgNode, input_shape: ShapeSpec) -> None:
        detector, source = _network(cfg)
        if input_shape.channels != detector.out_channels:
            raise ZooError(
                f"MODEL.ROI_BOX_HEAD.NAME: FBNetV3BoxHead of {detector.name} takes {detector.out_channels} channels, "
                f"not {input_shape.channels}; use it with build_fbnetv3_backbone and ROI_HEADS.IN_FEATURES [stride16]"
            )
        super().__init__(detector.box_blocks)
        if source is not None:
            take_weights([self.stages], source, after=len(detector.trunk_blocks))
        self.stages = _normed(self.stages, cfg.MODEL.FBNETV3.NORM)

    @property
    def output_shape(self) -> ShapeSpec:
        """One vector a region."""
        return ShapeSpec(channels=self.out_channels)


def _network(cfg: CfgNode, *, weights: bool = True) -> tuple[Detector, FBNet | None]:
    """The network of the configuration cut in two, and it with its weights; None for a published detector."""
    name, pretrained = cfg.MODEL.FBNETV3.NAME, cfg.MODEL.FBNETV3.PRETRAINED
    if name in DETECTORS:
        if pretrained:
            raise ZooError(f"MODEL.FBNETV3.PRETRAINED: {name} has no ImageNet weights; give MODEL.WEIGHTS")
        return DETECTORS[name], None
    if not weights:
        return split(find_arch(name)), None
    source = create(name, pretrained=True if pretrained.lower() == "true" else pretrained or False)
    return split(source.arch), source


def _backbone(cfg: CfgNode, blocks: Sequence[Block], strides: Sequence[int], source: FBNet | None) -> FBNetV3Backbone:
    freeze_at, norm = cfg.MODEL.BACKBONE.FREEZE_AT, cfg.MODEL.FBNETV3.NORM
    if (freeze_at or norm == "FrozenBN") and not (cfg.MODEL.FBNETV3.PRETRAINED or cfg.MODEL.WEIGHTS):
        what = f"MODEL.BACKBONE.FREEZE_AT {freeze_at}" if freeze_at else "MODEL.FBNETV3.NORM FrozenBN"
        raise ZooError(
            f"{what} keeps weights and statistics as they are, and without weights they are random: give "
            "MODEL.FBNETV3.PRETRAINED or MODEL.WEIGHTS, or set FREEZE_AT 0 and NORM BN"
        )
    return FBNetV3Backbone(blocks, strides, source=source, freeze_at=freeze_at, norm=norm)


def _check_channels(detector: Detector, input_shape: ShapeSpec) -> None:
    if input_shape.channels != detector.in_channels:
        raise ZooError(
            f"MODEL.PIXEL_MEAN has {input_shape.channels} channels, {detector.name} takes {detector.in_channels}"
        )


def _normed(module: nn.Module, norm: Norm) -> Any:
    if norm not in ("BN", "SyncBN", "FrozenBN"):
        raise ZooError(f"MODEL.FBNETV3.NORM is {norm!r}; choose from BN, SyncBN, FrozenBN")
    if norm == "FrozenBN":
        freeze_norms(module)
    if norm == "SyncBN":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    return module

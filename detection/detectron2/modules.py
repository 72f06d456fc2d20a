"""detectron2's side: backbone, RPN head, box head, a model that keeps a moving average, and their keys.

Each part is built from plain arguments, as detectron2's LazyConfig does, or from a ``CfgNode``, as its registries do
after :func:`add_fbnetv3_config`. detectron2's unmodified tools call that themselves when the environment variable
``DETECTRON2_ENV_MODULE`` names :mod:`fbnetv3_zoo.detection.detectron2.environment`; LazyConfig files need neither.
Needs detectron2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, META_ARCH_REGISTRY, Backbone, GeneralizedRCNN
from detectron2.modeling.anchor_generator import build_anchor_generator
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.proposal_generator.rpn import RPN_HEAD_REGISTRY
from detectron2.modeling.roi_heads import ROI_BOX_HEAD_REGISTRY
from detectron2.solver.lr_scheduler import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler, ParamScheduler
from torch import Tensor, nn

from fbnetv3_zoo.arch import Block
from fbnetv3_zoo.errors import ZooError, nearest
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.weights.registry import find_network

from ..models.detector import Detector, split
from ..models.modules import BoxHead, RegionHead, Trunk, freeze_norms, freeze_stages, take_weights
from ..models.presets import DETECTORS
from .ema import BufferedAverage

Norm = Literal["BN", "SyncBN", "FrozenBN"]
EMA_DECAY = 0.9998
"""That of the published detectors."""
_PYRAMID = (4, 8, 16, 32)
_CONFIGS = Path(__file__).parents[1] / "configs"


def add_fbnetv3_config(cfg: CfgNode) -> None:
    """Register the parts with detectron2 and add ``MODEL.FBNETV3`` with its defaults to ``cfg``.

    ``NAME``: a network as of :func:`fbnetv3_zoo.create`, or a published detector. ``PRETRAINED``: ImageNet weights for
    trunk and box head: ``"true"`` for the published ones, a tag, a path, an address; empty for none. ``NORM``: BN,
    SyncBN, or FrozenBN, which needs weights. ``EMA_DECAY``: that of :class:`AveragedRCNN`. A second call changes
    nothing.
    """
    register()
    if "FBNETV3" not in cfg.MODEL:
        cfg.MODEL.FBNETV3 = CfgNode({"NAME": "fbnetv3_a", "PRETRAINED": "", "NORM": "BN", "EMA_DECAY": EMA_DECAY})


def config_file(name: str) -> str:
    """The path of a shipped configuration: ``fbnetv3_a_c4`` is a yaml file, ``fbnetv3_a_c4.py`` one for LazyConfig.

    For ``--config-file`` of the tools, ``cfg.merge_from_file`` and ``LazyConfig.load``.
    """
    files = {path.stem: path for path in sorted(_CONFIGS.glob("fbnetv3_*.yaml"))}
    files |= {path.name: path for path in sorted(_CONFIGS.glob("fbnetv3_*.py"))}
    if name not in files:
        raise ZooError(f"unknown configuration {name!r}{nearest(name, files)}; there are {', '.join(files)}")
    return str(files[name])


def register() -> None:
    """Enter what yaml files name: the two backbones, ``FBNetV3RPNHead``, ``FBNetV3BoxHead`` and ``AveragedRCNN``."""
    entries: tuple[tuple[Any, Any], ...] = (
        (BACKBONE_REGISTRY, build_fbnetv3_backbone),
        (BACKBONE_REGISTRY, build_fbnetv3_fpn_backbone),
        (RPN_HEAD_REGISTRY, FBNetV3RPNHead),
        (ROI_BOX_HEAD_REGISTRY, FBNetV3BoxHead),
        (META_ARCH_REGISTRY, AveragedRCNN),
    )
    for registry, entry in entries:
        if entry.__name__ not in registry:
            registry.register(entry)


class FBNetV3Backbone(Backbone):  # type: ignore[misc]
    """A trunk as a backbone of detectron2: maps named ``stride4``, ``stride8`` ... of ceil(side / stride) pixels.

    Args:
        name: a network as of :func:`fbnetv3_zoo.create`, padded symmetrically, or a published detector.
        strides: which maps; the coarsest ends the trunk. 16 for C4; 4, 8, 16 and 32 for a pyramid.
        pretrained: ImageNet weights as of :func:`fbnetv3_zoo.create`; a published detector has none.
        norm: what becomes of the batch norms.
        freeze_at: so many of the first stages keep their weights and statistics.
        checkpoint: the file that the model is loaded from afterwards; it is not read here, but told so that freezing
            is not refused. Without weights, FrozenBN and ``freeze_at`` would keep random ones.
    """

    def __init__(
        self, name: str, *, strides: Sequence[int] = (16,), pretrained: bool | str = False, norm: Norm = "BN",
        freeze_at: int = 0, checkpoint: str = "",
    ) -> None:  # fmt: skip
        super().__init__()
        _check_kept(freeze_at, norm, pretrained or checkpoint)
        detector, source = _network(name, pretrained)
        self.trunk = Trunk(_trunk_blocks(detector, source, max(strides)), strides)
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
    return _configured_backbone(cfg, input_shape, (16,))


def build_fbnetv3_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """A feature pyramid over strides 4 to 32 (``MODEL.BACKBONE.NAME``); widths and norm as of ``MODEL.FPN``."""
    return FPN(
        bottom_up=_configured_backbone(cfg, input_shape, _PYRAMID),
        in_features=[f"stride{stride}" for stride in _PYRAMID],
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


class FBNetV3RPNHead(RegionHead):
    """The trunk's last row again, then logits and deltas (``MODEL.RPN.HEAD_NAME``).

    Args:
        name: as of :class:`FBNetV3Backbone`.
        num_anchors: anchors of every pixel.
        norm: as of :class:`FBNetV3Backbone`; its statistics are never fixed, as they are new.
    """

    @configurable  # type: ignore[untyped-decorator]
    def __init__(self, name: str, *, num_anchors: int, norm: Norm = "BN") -> None:
        super().__init__(_detector(name).rpn_blocks, num_anchors)
        self.feature = _normed(self.feature, "BN" if norm == "FrozenBN" else norm)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Sequence[ShapeSpec]) -> dict[str, Any]:
        """The arguments that ``cfg`` stands for."""
        anchors = build_anchor_generator(cfg, input_shape).num_anchors[0]
        return {"name": cfg.MODEL.FBNETV3.NAME, "num_anchors": anchors, "norm": cfg.MODEL.FBNETV3.NORM}


class FBNetV3BoxHead(BoxHead):
    """What follows the trunk in the network, on every region (``MODEL.ROI_BOX_HEAD.NAME``).

    ``name``, ``pretrained`` and ``norm`` are those of :class:`FBNetV3Backbone`; ``in_channels``, where it is known, is
    checked to be the trunk's.
    """

    @configurable  # type: ignore[untyped-decorator]
    def __init__(
        self, name: str, *, pretrained: bool | str = False, norm: Norm = "BN", in_channels: int | None = None
    ) -> None:
        detector, source = _network(name, pretrained)
        if in_channels not in (None, detector.out_channels):
            raise ZooError(
                f"FBNetV3BoxHead of {detector.name} takes {detector.out_channels} channels, not {in_channels}; use it "
                "with build_fbnetv3_backbone and MODEL.ROI_HEADS.IN_FEATURES [stride16]"
            )
        super().__init__(detector.box_blocks)
        if source is not None:
            take_weights([self.stages], source, after=len(detector.trunk_blocks))
        self.stages = _normed(self.stages, norm)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """The arguments that ``cfg`` stands for."""
        return {**_weights(cfg), "in_channels": input_shape.channels}

    @property
    def output_shape(self) -> ShapeSpec:
        """One vector a region."""
        return ShapeSpec(channels=self.out_channels)


class AveragedRCNN(GeneralizedRCNN):  # type: ignore[misc]
    """detectron2's R-CNN with a moving average of its parameters and statistics, which evaluation uses.

    Every training forward first takes in the weights as the step before has left them, beginning with those that were
    loaded. The average of a model after some steps thus lacks the last, in training and in the checkpoint alike.
    Before any training, evaluation uses the plain weights. In one optimizer step there must be one forward.

    Args:
        ema_decay: factor of the average a step (FBNetV3, arXiv 2006.02049, section 5.3, has an average; the value is
            that of the published detectors); 0: no average. It reaches back some 1 / (1 - ``ema_decay``) steps, so
            that a short run needs a lower one.
        parts: those of ``GeneralizedRCNN``.
    """

    @configurable  # type: ignore[untyped-decorator]
    def __init__(self, *, ema_decay: float = EMA_DECAY, **parts: Any) -> None:
        super().__init__(**parts)
        self.average = BufferedAverage(self, ema_decay) if ema_decay else None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The arguments that ``cfg`` stands for."""
        return {**super().from_config(cfg), "ema_decay": cfg.MODEL.FBNETV3.EMA_DECAY}

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Losses in training, otherwise an ``Instances`` an image, as of ``GeneralizedRCNN``."""
        if self.average is not None and self.training and torch.is_grad_enabled():
            self.average.update(self)
        return super().forward(batched_inputs)

    def inference(
        self, batched_inputs: list[dict[str, Any]], detected_instances: Any = None, do_postprocess: bool = True
    ) -> Any:
        """As of ``GeneralizedRCNN``, with the averaged weights."""
        with nullcontext() if self.average is None else self.average.standing_in_for(self):
            return super().inference(batched_inputs, detected_instances, do_postprocess)

    def averaged_state_dict(self) -> dict[str, Tensor]:
        """Copies of the averaged weights, or without training the plain ones, by their plain names.

        Saved as ``{"model": ...}``, they are a checkpoint for ``GeneralizedRCNN``, or for fine-tuning from the average.
        """
        plain = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("average.")}
        averaged = {} if self.average is None else self.average.values()
        return {name: tensor.clone() for name, tensor in {**plain, **averaged}.items()}


def box_features(name: str) -> ShapeSpec:
    """What the box head of a network or published detector gives for a region."""
    return ShapeSpec(channels=_detector(name).box_blocks[-1].out_channels)


def warmup_cosine(*, steps: int, warmup: int) -> ParamScheduler:
    """Factor of the learning rate: linear from 0.001 over ``warmup`` steps, then a cosine over ``steps`` down to 0.

    As ``WarmupCosineLR`` of the yaml files has it.
    """
    return WarmupParamScheduler(CosineParamScheduler(1, 0), 0.001, min(warmup / steps, 1.0))


def _detector(name: str) -> Detector:
    return DETECTORS[name] if name in DETECTORS else split(find_network(name))


def _network(name: str, pretrained: bool | str) -> tuple[Detector, FBNet | None]:
    """A network cut in two, and it with its weights; None for a published detector."""
    if name not in DETECTORS:
        source = create(name, pretrained=pretrained or False)
        return split(source.arch), source
    if pretrained:
        raise ZooError(
            f"{name} has no ImageNet weights: leave MODEL.FBNETV3.PRETRAINED empty (LazyConfig: "
            "model.backbone.pretrained) and give MODEL.WEIGHTS (train.init_checkpoint)"
        )
    return DETECTORS[name], None


def _trunk_blocks(detector: Detector, source: FBNet | None, stride: int) -> Sequence[Block]:
    """The blocks up to ``stride``, beyond the detector's own trunk where the network has them."""
    if stride <= detector.stride:
        return detector.trunk_blocks
    if source is None:
        raise ZooError(f"{detector.name} has no map of stride {stride}; it is for C4, with the map of stride 16")
    arch = source.arch.with_symmetric_padding()
    return [block for block in arch.blocks if block.stage < arch.trunk_depth]


def _weights(cfg: CfgNode) -> dict[str, Any]:
    settings = cfg.MODEL.FBNETV3
    pretrained = True if settings.PRETRAINED.lower() == "true" else settings.PRETRAINED or False
    return {"name": settings.NAME, "pretrained": pretrained, "norm": settings.NORM}


def _configured_backbone(cfg: CfgNode, input_shape: ShapeSpec, strides: Sequence[int]) -> FBNetV3Backbone:
    detector = _detector(cfg.MODEL.FBNETV3.NAME)
    if input_shape.channels != detector.in_channels:
        raise ZooError(
            f"MODEL.PIXEL_MEAN has {input_shape.channels} channels, {detector.name} takes {detector.in_channels}"
        )
    frozen = {"freeze_at": cfg.MODEL.BACKBONE.FREEZE_AT, "checkpoint": cfg.MODEL.WEIGHTS}
    return FBNetV3Backbone(**_weights(cfg), **frozen, strides=strides)


def _check_kept(freeze_at: int, norm: Norm, weights: bool | str) -> None:
    if (freeze_at or norm == "FrozenBN") and not weights:
        raise ZooError(
            f"{f'freeze_at {freeze_at}' if freeze_at else 'norm FrozenBN'} keeps weights and statistics as they are, "
            "and without weights they are random: give MODEL.FBNETV3.PRETRAINED or MODEL.WEIGHTS (LazyConfig: "
            "model.backbone.pretrained or train.init_checkpoint), or set freeze_at 0 and norm BN"
        )


def _normed(module: nn.Module, norm: Norm) -> Any:
    if norm not in ("BN", "SyncBN", "FrozenBN"):
        raise ZooError(f"norm is {norm!r}; choose from BN, SyncBN, FrozenBN")
    if norm == "FrozenBN":
        freeze_norms(module)
    if norm == "SyncBN":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    return module

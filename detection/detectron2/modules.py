"""Modules for detectron2: backbone, RPN head, box head, a model with a moving average, and their config keys.

Each is built from plain arguments, as by detectron2's LazyConfig, or from a ``CfgNode``, as by its registries after
:func:`add_fbnetv3_config`. detectron2's unmodified tools call the latter if the environment variable
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
"""The decay of the published detectors."""
_PYRAMID = (4, 8, 16, 32)
_CONFIGS = Path(__file__).parents[1] / "configs"


def add_fbnetv3_config(cfg: CfgNode) -> None:
    """Register the modules with detectron2 and add ``MODEL.FBNETV3`` with its defaults to ``cfg``.

    ``NAME``: a network as in :func:`fbnetv3_zoo.create`, or a published detector. ``PRETRAINED``: ImageNet weights for
    trunk and box head: ``"true"`` for the published ones, a tag, a path, a URL; empty for none. ``NORM``: BN, SyncBN,
    or FrozenBN, which needs weights. ``EMA_DECAY``: see :class:`AveragedRCNN`. Further calls change nothing.
    """
    register()
    if "FBNETV3" not in cfg.MODEL:
        cfg.MODEL.FBNETV3 = CfgNode({"NAME": "fbnetv3_a", "PRETRAINED": "", "NORM": "BN", "EMA_DECAY": EMA_DECAY})


def config_file(name: str) -> str:
    """The path of a bundled configuration: ``fbnetv3_a_c4`` for the yaml file, ``fbnetv3_a_c4.py`` for LazyConfig.

    For the tools' ``--config-file``, ``cfg.merge_from_file`` and ``LazyConfig.load``.
    """
    files = {path.stem: path for path in sorted(_CONFIGS.glob("fbnetv3_*.yaml"))}
    files |= {path.name: path for path in sorted(_CONFIGS.glob("fbnetv3_*.py"))}
    if name not in files:
        raise ZooError(f"unknown configuration {name!r}{nearest(name, files)}; there are {', '.join(files)}")
    return str(files[name])


def register() -> None:
    """Register what yaml files name: the two backbones, ``FBNetV3RPNHead``, ``FBNetV3BoxHead``, ``AveragedRCNN``."""
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
    """A trunk as a detectron2 backbone, with maps named ``stride4``, ``stride8`` ... of ceil(side / stride) pixels.

    Args:
        name: a network as in :func:`fbnetv3_zoo.create`, padded symmetrically, or a published detector.
        strides: strides of the maps; the largest ends the trunk. 16 for C4; 4, 8, 16 and 32 for a pyramid.
        pretrained: ImageNet weights as in :func:`fbnetv3_zoo.create`; a published detector has none.
        norm: the kind of batch norm to use.
        freeze_at: number of first stages whose weights and statistics are frozen.
        checkpoint: the file from which the model is loaded afterwards. It is not read here, but allows FrozenBN and
            ``freeze_at``, which without any weights would freeze random ones.
    """

    def __init__(
        self, name: str, *, strides: Sequence[int] = (16,), pretrained: bool | str = False, norm: Norm = "BN",
        freeze_at: int = 0, checkpoint: str = "",
    ) -> None:  # fmt: skip
        super().__init__()
        _check_frozen(freeze_at, norm, pretrained or checkpoint)
        detector, source = _network(name, pretrained)
        self.trunk = Trunk(_trunk_blocks(detector, source, max(strides)), strides)
        if source is not None:
            take_weights([self.trunk.stages], source)
        self.trunk = _with_norm(self.trunk, norm)
        freeze_stages(self.trunk, freeze_at)
        self._shapes = {
            name: ShapeSpec(channels=width, stride=stride)
            for stride, (name, width) in zip(strides, self.trunk.channels.items(), strict=True)
        }

    def forward(self, images: Tensor) -> Mapping[str, Tensor]:  # noqa: D102
        maps: Mapping[str, Tensor] = self.trunk(images)
        return maps

    def output_shape(self) -> Mapping[str, ShapeSpec]:
        """Channels and stride of each map."""
        return dict(self._shapes)

    @property
    def size_divisibility(self) -> int:
        """0: images may have any size. A pyramid on top has its own value."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """No constraints; read by newer releases of detectron2."""
        return {}


def build_fbnetv3_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FBNetV3Backbone:
    """The trunk up to stride 16, for C4 (set ``MODEL.BACKBONE.NAME``)."""
    return _configured_backbone(cfg, input_shape, (16,))


def build_fbnetv3_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """A feature pyramid over strides 4 to 32 (set ``MODEL.BACKBONE.NAME``); ``MODEL.FPN`` has its width and norm."""
    return FPN(
        bottom_up=_configured_backbone(cfg, input_shape, _PYRAMID),
        in_features=[f"stride{stride}" for stride in _PYRAMID],
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


class FBNetV3RPNHead(RegionHead):
    """The trunk's last row repeated, then logits and deltas (set ``MODEL.RPN.HEAD_NAME``).

    Args:
        name: as in :class:`FBNetV3Backbone`.
        num_anchors: number of anchors per pixel.
        norm: as in :class:`FBNetV3Backbone`, but FrozenBN means BN here, since these layers are new.
    """

    @configurable  # type: ignore[untyped-decorator]
    def __init__(self, name: str, *, num_anchors: int, norm: Norm = "BN") -> None:
        super().__init__(_detector(name).rpn_blocks, num_anchors)
        self.feature = _with_norm(self.feature, "BN" if norm == "FrozenBN" else norm)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Sequence[ShapeSpec]) -> dict[str, Any]:
        """The arguments given by ``cfg``."""
        anchors = build_anchor_generator(cfg, input_shape).num_anchors[0]
        return {"name": cfg.MODEL.FBNETV3.NAME, "num_anchors": anchors, "norm": cfg.MODEL.FBNETV3.NORM}


class FBNetV3BoxHead(BoxHead):
    """The part of the network after the trunk, run on every region (set ``MODEL.ROI_BOX_HEAD.NAME``).

    ``name``, ``pretrained`` and ``norm`` are as in :class:`FBNetV3Backbone`; ``in_channels``, if given, must be the
    trunk's.
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
        self.stages = _with_norm(self.stages, norm)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """The arguments given by ``cfg``."""
        return {**_weights(cfg), "in_channels": input_shape.channels}

    @property
    def output_shape(self) -> ShapeSpec:
        """One vector per region."""
        return ShapeSpec(channels=self.out_channels)


class AveragedRCNN(GeneralizedRCNN):  # type: ignore[misc]
    """detectron2's R-CNN with a moving average of its parameters and statistics, which is used in evaluation.

    Each training forward first updates the average with the current weights, starting with those that were loaded. The
    average therefore always lags one step behind, in training and in checkpoints. Before any training, evaluation uses
    the plain weights. There must be exactly one forward per optimizer step.

    Args:
        ema_decay: decay per step (FBNetV3, arXiv 2006.02049, section 5.3, uses an average; the value is that of the
            published detectors); 0 for no average. The average covers some 1 / (1 - ``ema_decay``) steps, so a short
            run needs a lower value.
        parts: the arguments of ``GeneralizedRCNN``.
    """

    @configurable  # type: ignore[untyped-decorator]
    def __init__(self, *, ema_decay: float = EMA_DECAY, **parts: Any) -> None:
        super().__init__(**parts)
        self.average = BufferedAverage(self, ema_decay) if ema_decay else None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The arguments given by ``cfg``."""
        return {**super().from_config(cfg), "ema_decay": cfg.MODEL.FBNETV3.EMA_DECAY}

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Losses in training, otherwise one ``Instances`` per image, as in ``GeneralizedRCNN``."""
        if self.average is not None and self.training and torch.is_grad_enabled():
            self.average.update(self)
        return super().forward(batched_inputs)

    def inference(
        self, batched_inputs: list[dict[str, Any]], detected_instances: Any = None, do_postprocess: bool = True
    ) -> Any:
        """As in ``GeneralizedRCNN``, with the averaged weights."""
        with nullcontext() if self.average is None else self.average.standing_in_for(self):
            return super().inference(batched_inputs, detected_instances, do_postprocess)

    def averaged_state_dict(self) -> dict[str, Tensor]:
        """Copies of the averaged weights under their plain names; before any training, of the plain weights.

        Saved as ``{"model": ...}`` they are a checkpoint for ``GeneralizedRCNN``, or to fine-tune from the average.
        """
        plain = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("average.")}
        averaged = {} if self.average is None else self.average.values()
        return {name: tensor.clone() for name, tensor in {**plain, **averaged}.items()}


def box_features(name: str) -> ShapeSpec:
    """Shape of the box head's output for a region, for a network or published detector."""
    return ShapeSpec(channels=_detector(name).box_blocks[-1].out_channels)


def warmup_cosine(*, steps: int, warmup: int) -> ParamScheduler:
    """Learning rate factor: linear from 0.001 over ``warmup`` steps, then a cosine over ``steps`` down to 0.

    The same as ``WarmupCosineLR`` in the yaml files.
    """
    return WarmupParamScheduler(CosineParamScheduler(1, 0), 0.001, min(warmup / steps, 1.0))


def _detector(name: str) -> Detector:
    return DETECTORS[name] if name in DETECTORS else split(find_network(name))


def _network(name: str, pretrained: bool | str) -> tuple[Detector, FBNet | None]:
    """A network split in two, and the whole network with its weights; None for a published detector."""
    if name not in DETECTORS:
        source = create(name, pretrained=pretrained or False)
        return split(source.arch), source
    if pretrained:
        raise ZooError(
            f"{name} has no ImageNet weights; leave MODEL.FBNETV3.PRETRAINED empty (LazyConfig: "
            "model.backbone.pretrained) and give MODEL.WEIGHTS (train.init_checkpoint)"
        )
    return DETECTORS[name], None


def _trunk_blocks(detector: Detector, source: FBNet | None, stride: int) -> Sequence[Block]:
    """The blocks up to ``stride``, which may lie beyond the detector's trunk if there is a ``source`` network."""
    if stride <= detector.stride:
        return detector.trunk_blocks
    if source is None:
        raise ZooError(f"{detector.name} has no map of stride {stride}; use it for C4, with stride 16")
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
            f"MODEL.PIXEL_MEAN has {input_shape.channels} channels; give {detector.in_channels} for {detector.name}"
        )
    frozen = {"freeze_at": cfg.MODEL.BACKBONE.FREEZE_AT, "checkpoint": cfg.MODEL.WEIGHTS}
    return FBNetV3Backbone(**_weights(cfg), **frozen, strides=strides)


def _check_frozen(freeze_at: int, norm: Norm, weights: bool | str) -> None:
    if (freeze_at or norm == "FrozenBN") and not weights:
        raise ZooError(
            f"{f'freeze_at {freeze_at}' if freeze_at else 'norm FrozenBN'} would freeze random weights and "
            "statistics; give MODEL.FBNETV3.PRETRAINED or MODEL.WEIGHTS (LazyConfig: model.backbone.pretrained or "
            "train.init_checkpoint), or set freeze_at 0 and norm BN"
        )


def _with_norm(module: nn.Module, norm: Norm) -> Any:
    if norm not in ("BN", "SyncBN", "FrozenBN"):
        raise ZooError(f"norm is {norm!r}; choose from BN, SyncBN, FrozenBN")
    if norm == "FrozenBN":
        freeze_norms(module)
    if norm == "SyncBN":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    return module

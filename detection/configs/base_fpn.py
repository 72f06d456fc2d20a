"""Faster R-CNN on a feature pyramid; values and their sources are those of base_fpn.yaml.

The network is set in ``model.backbone.bottom_up.name``.
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from detectron2.modeling.roi_heads import FastRCNNConvFCHead

from fbnetv3_zoo.detection.detectron2.modules import FBNetV3Backbone

from .base import dataloader, lr_multiplier, model, optimizer, train

__all__ = ["dataloader", "lr_multiplier", "model", "optimizer", "train"]

model.backbone = L(FPN)(
    bottom_up=L(FBNetV3Backbone)(
        name="fbnetv3_a",
        strides=[4, 8, 16, 32],
        pretrained=True,
        norm="SyncBN",
        freeze_at=0,
        checkpoint="${....train.init_checkpoint}",
    ),
    in_features=["stride4", "stride8", "stride16", "stride32"],
    out_channels=256,
    top_block=L(LastLevelMaxPool)(),
)

_rpn = model.proposal_generator
_rpn.in_features = ["p2", "p3", "p4", "p5", "p6"]
_rpn.anchor_generator.update(sizes=[[32], [64], [128], [256], [512]], strides=[4, 8, 16, 32, 64])
_rpn.head = L(StandardRPNHead)(in_channels="${...backbone.out_channels}", num_anchors=3)
_rpn.post_nms_topk = [1000, 1000]

_heads = model.roi_heads
_heads.box_in_features = ["p2", "p3", "p4", "p5"]
_heads.box_pooler.update(output_size=7, scales=[1 / 4, 1 / 8, 1 / 16, 1 / 32])
_heads.box_head = L(FastRCNNConvFCHead)(
    input_shape=L(ShapeSpec)(channels="${....backbone.out_channels}", height=7, width=7),
    conv_dims=[],
    fc_dims=[1024, 1024],
)
_heads.box_predictor.input_shape = L(ShapeSpec)(channels=1024)

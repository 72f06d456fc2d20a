"""Faster R-CNN on the trunk's map of stride 16; values and their sources are those of base_c4.yaml.

``name``, ``pretrained`` and ``norm`` in ``model.backbone`` apply to all parts of the network.
"""

from detectron2.config import LazyCall as L

from fbnetv3_zoo.detection.detectron2.modules import FBNetV3Backbone, FBNetV3BoxHead, FBNetV3RPNHead, box_features

from .base import dataloader, lr_multiplier, model, optimizer, train

__all__ = ["dataloader", "lr_multiplier", "model", "optimizer", "train"]

model.backbone = L(FBNetV3Backbone)(
    name="fbnetv3_a",
    strides=[16],
    pretrained=True,
    norm="SyncBN",
    freeze_at=0,
    checkpoint="${...train.init_checkpoint}",
)

_rpn = model.proposal_generator
_rpn.in_features = ["stride16"]
_rpn.anchor_generator.update(sizes=[[32, 64, 96, 128, 160]], strides=[16])
_rpn.head = L(FBNetV3RPNHead)(name="${...backbone.name}", num_anchors=15, norm="${...backbone.norm}")
_rpn.post_nms_topk = [2000, 75]

_heads = model.roi_heads
_heads.box_in_features = ["stride16"]
_heads.box_pooler.update(output_size=6, scales=[1 / 16])
_heads.box_head = L(FBNetV3BoxHead)(
    name="${...backbone.name}", pretrained="${...backbone.pretrained}", norm="${...backbone.norm}"
)
_heads.box_predictor.input_shape = L(box_features)(name="${....backbone.name}")

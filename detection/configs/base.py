"""Shared by all LazyConfig files: data, solver, Faster R-CNN and the settings of ``tools/lazyconfig_train_net.py``.

Values and their sources are those of base.yaml, otherwise detectron2's defaults.
"""

import detectron2.data.transforms as T
import torch
from detectron2.config import LazyCall as L
from detectron2.data import (
    DatasetMapper,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, StandardROIHeads
from detectron2.solver.build import get_default_optimizer_params
from omegaconf import DictConfig

from fbnetv3_zoo.detection.detectron2.modules import EMA_DECAY, AveragedRCNN, warmup_cosine

dataloader = DictConfig({}, flags={"allow_objects": True})

dataloader.train = L(build_detection_train_loader)(
    dataset=L(get_detection_dataset_dicts)(names="coco_2017_train"),
    mapper=L(DatasetMapper)(
        is_train=True,
        augmentations=[
            L(T.ResizeShortestEdge)(short_edge_length=[800], max_size=1333, sample_style="choice"),
            L(T.RandomFlip)(horizontal=True),
        ],
        image_format="RGB",
    ),
    total_batch_size=32,
    num_workers=4,
)

dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names="coco_2017_val", filter_empty=False),
    mapper=L(DatasetMapper)(
        is_train=False,
        augmentations=[L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333, sample_style="choice")],
        image_format="${...train.mapper.image_format}",
    ),
    num_workers=4,
)

dataloader.evaluator = L(COCOEvaluator)(
    dataset_name="${..test.dataset.names}", output_dir="${...train.output_dir}/inference"
)

optimizer = L(torch.optim.SGD)(
    params=L(get_default_optimizer_params)(weight_decay_norm=0.0),  # the tool gives the model
    lr=0.16,
    momentum=0.9,
    weight_decay=1e-4,
)

lr_multiplier = L(warmup_cosine)(steps="${..train.max_iter}", warmup=1000)

train = DictConfig(
    {
        "output_dir": "./output",
        "init_checkpoint": "",
        "max_iter": 135_000,
        "amp": {"enabled": False},
        "ddp": {"broadcast_buffers": False, "find_unused_parameters": False, "fp16_compression": False},
        "checkpointer": {"period": 5000},
        "eval_period": 0,
        "log_period": 20,
        "device": "cuda",
    }
)

# base_c4.py and base_fpn.py add the backbone, the heads, and what depends on the number of maps.
model = L(AveragedRCNN)(
    proposal_generator=L(RPN)(
        anchor_generator=L(DefaultAnchorGenerator)(aspect_ratios=[0.5, 1.0, 2.0], offset=0.0),
        anchor_matcher=L(Matcher)(thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_topk=[2000, 1000],
        nms_thresh=0.7,
    ),
    roi_heads=L(StandardROIHeads)(
        num_classes=80,
        batch_size_per_image=512,
        positive_fraction=0.25,
        proposal_matcher=L(Matcher)(thresholds=[0.5], labels=[0, 1], allow_low_quality_matches=False),
        box_pooler=L(ROIPooler)(sampling_ratio=0, pooler_type="ROIAlignV2"),
        box_predictor=L(FastRCNNOutputLayers)(
            num_classes="${..num_classes}",
            box2box_transform=L(Box2BoxTransform)(weights=[10.0, 10.0, 5.0, 5.0]),
            test_score_thresh=0.05,
        ),
    ),
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
    input_format="RGB",
    ema_decay=EMA_DECAY,
)

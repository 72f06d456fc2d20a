"""The published detector A (22.99 box AP at 224/320), trained from train.init_checkpoint or from scratch."""

from .base_c4 import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model.backbone.name = "fbnetv3_a_detector"
model.backbone.pretrained = False
model.proposal_generator.post_nms_topk = [2000, 30]
model.pixel_mean = [103.53, 116.28, 123.675]
model.pixel_std = [1.0, 1.0, 1.0]
model.input_format = "BGR"
dataloader.train.mapper.image_format = "BGR"
dataloader.train.mapper.augmentations[0].update(short_edge_length=[224], max_size=320)
dataloader.test.mapper.augmentations[0].update(short_edge_length=224, max_size=320)
train.max_iter = 540_000

"""FBNetV3-E with a feature pyramid, for detectron2's LazyConfig."""

from .base_fpn import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model.backbone.bottom_up.name = "fbnetv3_e"

"""FBNetV3-A with the head of its own network on every region, for detectron2's LazyConfig."""

from .base_c4 import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model.backbone.name = "fbnetv3_a"

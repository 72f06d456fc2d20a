"""A network whose norms have seen photographs, and whose logits on them are about 1: as training would leave it."""

from __future__ import annotations

import torch
from torch import nn

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.export.sample_images import photographs
from fbnetv3_zoo.models.fbnet import FBNet


def settled(arch: Arch, names: tuple[str, ...] | None = None) -> FBNet:
    """``arch`` in evaluation mode, with random filters, no norm of which is neutral."""
    generator = torch.Generator().manual_seed(0)
    network = FBNet(arch, generator=generator)
    network.class_names = names
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
        nn.init.normal_(norm.bias, std=0.1, generator=generator)
        norm.momentum = None  # the plain average over all batches
    images = network.preprocess(photographs(48, seed=1))
    with torch.no_grad():
        for part in images.split(16):
            network(part)
        network.classifier.weight /= network.eval()(images).std()
    return network

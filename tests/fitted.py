"""A network that knows the handwritten digits without having been trained: made in a second."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.training.data import digits


def fitted(arch: Arch) -> FBNet:
    """``arch`` with random filters and the classifier that least squares give: for the tiny one, 9 of 10 right."""
    data = digits()
    network = FBNet(replace(arch, in_channels=1), generator=torch.Generator().manual_seed(0))
    network.preprocess = Preprocess(arch.resolution, arch.resolution, mean=data.mean, std=data.std)
    network.class_names = data.class_names
    images = network.preprocess([example.read() for example in data["train"]])
    wanted = 10 * F.one_hot(torch.tensor([example.label for example in data["train"]])).double()
    seen: list[Tensor] = []
    hook = network.classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        for part in images.split(128):
            network(part)  # the norms' statistics
        network.eval()(images)
        features = F.pad(seen[-1].double(), (0, 1), value=1.0)
        solution = torch.linalg.lstsq(features, wanted).solution.float()
        network.classifier.weight.copy_(solution[:-1].T)
        network.classifier.bias.copy_(solution[-1])
    hook.remove()
    return network

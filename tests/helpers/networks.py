"""Small networks to export: of every generation, with statistics and classifiers as training would leave them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest import mock

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fbnetv3_zoo.arch import Activation, Arch, Conv, Gate, InvertedResidual, PoolingHead, Skip, SqueezeExcite
from fbnetv3_zoo.export import export_onnx
from fbnetv3_zoo.export.backends import ort_mobile
from fbnetv3_zoo.export.backends.executorch_pte import export_executorch
from fbnetv3_zoo.export.backends.litert_tflite import export_litert
from fbnetv3_zoo.export.backends.ncnn_param import export_ncnn
from fbnetv3_zoo.export.backends.openvino_ir import export_openvino
from fbnetv3_zoo.export.backends.ort_mobile import Platform, export_mobile
from fbnetv3_zoo.export.sample_images import photographs
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.training.data import digits
from fbnetv3_zoo.weights.serialization import save

NAMES = ("zero", "één", "две", "三", 'a "b" & <c>', "tab\tline\n", "six", "seven", "eight", "nine")

V1 = Arch(  # grouped 1x1 convolutions with a shuffle, a skip of another shape, no pooling head
    "v1",
    32,
    (
        (Conv(3, 8, 2, Activation.RELU),),
        (
            InvertedResidual(3, 8, 1, 1, 1, Activation.RELU, conv_bias=True, groups_1x1=2),
            InvertedResidual(5, 16, 2, 2, 3, Activation.RELU, conv_bias=True, channels_per_group=4),
            Skip(24, 2),
        ),
        (Conv(1, 32, 1, Activation.RELU),),
    ),
    num_classes=10,
)

V2 = Arch(  # ReLU, sigmoid gates, widths that are no multiples of anything
    "v2",
    32,
    (
        (Conv(3, 16, 2, Activation.RELU),),
        (
            InvertedResidual(
                3, 20, 2, 2, 3.3, Activation.RELU, SqueezeExcite(reduces="expanded", ratio=0.5, gate=Gate.SIGMOID)
            ),
        ),
        (PoolingHead(40, 2, Activation.RELU),),
    ),
    width_divisor=1,
    num_classes=10,
)

SHORT = Arch(  # a block with a gate, and a head: little to export, yet 48 KB of weights
    "short",
    32,
    (
        (Conv(3, 8, 2, Activation.HARD_SWISH),),
        (InvertedResidual(5, 16, 2, 1, 2, Activation.HARD_SWISH, SqueezeExcite(reduces="input")),),
        (PoolingHead(480, 2, Activation.HARD_SWISH),),
    ),
    num_classes=10,
)


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


def producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """For each tensor the node that writes it."""
    return {name: node for node in graph.node for name in node.output}


def write_files(arch: Arch, folder: Path) -> None:
    """The files of ``settled(arch, NAMES)`` for every runtime; for ONNX Runtime's mobile format also other forms."""
    model = settled(arch, NAMES)
    save(model, folder / "net.safetensors")
    export_onnx(model, folder / "net.onnx", batch_sizes=[2])
    with mock.patch.object(ort_mobile, "check_usability"):  # takes seconds, and is told in the report alone
        export_mobile(folder / "net.onnx", folder / "net.ort", platform=Platform.AMD64)
        export_mobile(folder / "net.onnx", folder / "arm.ort")
        export_mobile(folder / "net.onnx", folder / "three.ort", batch=3)
    export_openvino(folder / "net.onnx", folder / "net.xml")
    export_executorch(model, folder / "net.pte", max_batch=4)
    export_ncnn(folder / "net.onnx", folder / "net.ncnn.param")
    export_litert(folder / "net.onnx", folder / "net.tflite")

"""Networks of others to compare with, built by timm with random weights, and what was published of their accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from fbnetv3_zoo.errors import ZooError, nearest
from fbnetv3_zoo.export.bench.report import Subject


@dataclass(frozen=True, slots=True)
class Rival:
    """A network of timm's at ``resolution`` pixels; ``top1`` in percent on ImageNet (None: not in our table)."""

    name: str
    resolution: int
    top1: float | None = None
    source: str = ""

    @property
    def subject(self) -> Subject:
        """It among what is measured."""
        return Subject(self.name, self.resolution, None, self.top1, rival=True, source=self.source)


def _table() -> Mapping[str, Rival]:
    # The accuracies are those of the papers that a network comes from (of ResNet-50, which has been trained in many
    # ways: torchvision's first weights), at the resolution stated there, from training on ImageNet-1k alone.
    # fmt: off
    rows = (
        #      name in timm            pixels  top-1   source
        Rival("mobilenetv2_100",          224,  72.0,  "arXiv 1801.04381, table 4"),
        Rival("semnasnet_100",            224,  75.2,  "arXiv 1807.11626, table 1 (MnasNet-A1)"),
        Rival("mobilenetv3_large_075",    224,  73.3,  "arXiv 1905.02244, table 3"),
        Rival("mobilenetv3_large_100",    224,  75.2,  "arXiv 1905.02244, table 3"),
        Rival("ghostnet_100",             224,  73.9,  "arXiv 1911.11907, table 7"),
        Rival("ghostnet_130",             224,  75.7,  "arXiv 1911.11907, table 7"),
        Rival("efficientnet_b0",          224,  77.1,  "arXiv 1905.11946v5, table 2"),
        Rival("efficientnet_b1",          240,  79.1,  "arXiv 1905.11946v5, table 2"),
        Rival("efficientnet_b2",          260,  80.1,  "arXiv 1905.11946v5, table 2"),
        Rival("efficientnet_b3",          300,  81.6,  "arXiv 1905.11946v5, table 2"),
        Rival("regnety_004",              224,  74.1,  "arXiv 2003.13678, RegNetY-400MF"),
        Rival("regnety_006",              224,  75.5,  "arXiv 2003.13678, RegNetY-600MF"),
        Rival("regnety_008",              224,  76.3,  "arXiv 2003.13678, RegNetY-800MF"),
        Rival("regnety_016",              224,  78.0,  "arXiv 2003.13678, RegNetY-1.6GF"),
        Rival("resnet50",                 224,  76.13, "torchvision, ResNet50_Weights.IMAGENET1K_V1"),
    )
    # fmt: on
    return MappingProxyType({row.name: row for row in rows})


RIVALS = _table()


def find_rival(name: str) -> Rival:
    """The network that timm calls ``name``. Raises :class:`ZooError` where timm is missing or knows none."""
    try:
        import timm
    except ImportError:
        raise ZooError(
            f'--against {name}: needs timm, which is not installed; pip install "fbnetv3-zoo[bench]"'
        ) from None
    known = timm.list_models()
    if name not in known:
        raise ZooError(f"--against {name}: timm has no network of that name{nearest(name, known)}")
    if name in RIVALS:
        return RIVALS[name]
    given = timm.get_pretrained_cfg(name)
    return Rival(name, 224 if given is None else given.input_size[-1])


def export_rival(rival: Rival, path: Path) -> Path:
    """Write the network as an ONNX file for any batch, as timm and PyTorch's exporter give it."""
    import timm
    import torch

    from fbnetv3_zoo.graph_file import quiet_exporter

    network = timm.create_model(rival.name, exportable=True).eval()
    images = torch.zeros(2, 3, rival.resolution, rival.resolution)
    try:
        with quiet_exporter():
            torch.onnx.export(
                network, (images,), path, dynamo=True, input_names=["images"], opset_version=18,
                dynamic_shapes=({0: torch.export.Dim("batch")},), optimize=True, external_data=False, verbose=False,
            )  # fmt: skip
    except Exception as error:  # the exporter's own kinds
        raise ZooError(f"cannot be exported to ONNX ({str(error).splitlines()[0]})") from None
    return path

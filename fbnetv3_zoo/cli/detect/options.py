"""The groups of options of ``fbnetv3 detect``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ...errors import ZooError
from ...utils.paths import check_outside
from ..common import network_of

if TYPE_CHECKING:
    from fbnetv3_zoo.detection.data.coco import CocoData
    from fbnetv3_zoo.detection.models.serialization import DetectorSpec

    from ...models.fbnet import FBNet

Annotations = Annotated[Path, typer.Option(help="Box annotations, a JSON file in COCO format.")]
Images = Annotated[Path | None, typer.Option(help="Folder of the images (default: that of the annotations).")]
FollowLinks = Annotated[bool, typer.Option("--follow-links", help="Allow links to images outside their folder.")]


@dataclass(frozen=True, slots=True)
class BoxesOptions:
    """Training and validation annotations, with their images."""

    annotations: Annotations
    validation: Annotated[Path, typer.Option(help="Validation annotations, a JSON file in COCO format.")]
    images: Images = None
    validation_images: Annotated[Path | None, typer.Option(help="Folder of the validation images.")] = None
    follow_links: FollowLinks = False

    def check_outside(self, output: Path) -> None:
        """Raise :class:`ZooError` if ``output`` is inside a folder of images."""
        for folder in (self.images, self.validation_images):
            check_outside(output, folder)

    def read(self) -> tuple[CocoData, CocoData]:
        """The training and validation images."""
        from fbnetv3_zoo.detection.data.coco import read_coco

        pairs = ((self.annotations, self.images), (self.validation, self.validation_images))
        data, judged = (
            read_coco(boxes, images or boxes.parent, follow_links=self.follow_links) for boxes, images in pairs
        )
        return data, judged


@dataclass(frozen=True, slots=True)
class DetectorOptions:
    """The detector, and the initial weights of its network."""

    model: Annotated[str, typer.Option(help="A published name or an arch JSON file.")] = "fbnetv3_a"
    kind: Annotated[Literal["c4", "fpn"], typer.Option(help="Conv4 backbone (C4) or feature pyramid (FPN).")] = "c4"
    settings: Annotated[
        Path | None, typer.Option(help="JSON file of RCNNSettings: image size, anchors, proposals (docs/detection.md).")
    ] = None
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Start from the model's published weights.")] = False
    weights: Annotated[str | None, typer.Option(help="Weights to start from: a file, a tag, a URL.")] = None

    def spec(self, class_names: tuple[str, ...]) -> DetectorSpec:
        """The detector of these classes."""
        from fbnetv3_zoo.detection import DETECTORS, RCNNSettings
        from fbnetv3_zoo.detection.models.serialization import DetectorKind, DetectorSpec

        from ...utils.serialization import read_json

        if self.settings is not None:
            settings = read_json(RCNNSettings, self.settings)
        else:
            settings = RCNNSettings() if self.kind == "c4" else RCNNSettings(proposals=1000)
        kind = DetectorKind(self.kind)
        if self.model in DETECTORS:
            return DetectorSpec(class_names, kind=kind, settings=settings, published=self.model)
        return DetectorSpec(class_names, kind=kind, settings=settings, arch=network_of(self.model))

    def start(self) -> FBNet | None:
        """The network with its initial weights; None for random ones."""
        from ...factory import create

        if self.pretrained and self.weights is not None:
            raise ZooError("--pretrained and --weights both give weights to start from; give only one")
        return create(self.model, pretrained=self.weights or True) if self.pretrained or self.weights else None

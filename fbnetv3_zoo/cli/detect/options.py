"""The groups of options of ``fbnetv3 detect``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from ...errors import ZooError, check_number, check_whole
from ..option_groups import ArchOptions, Depth, Width

if TYPE_CHECKING:
    from fbnetv3_zoo.detection import RCNNSettings
    from fbnetv3_zoo.detection.data.coco import CocoData
    from fbnetv3_zoo.detection.models.serialization import DetectorSpec

    from ...models.fbnet import FBNet

VAL_SPLIT = 0.2
"""Share of the training images that is held out if no validation annotations are given."""
_SIZES = 32, 6000  # pixels: the greatest stride of a network, and what leaves the longer side below its limit


@dataclass(frozen=True, slots=True)
class BoxesOptions:
    """Annotations with their images, given as arguments or as options."""

    title: ClassVar[str] = "Images"
    annotations_argument: Annotated[
        Path | None,
        typer.Argument(metavar="ANNOTATIONS", help="Box annotations; the same as --annotations.", show_default=False),
    ] = None
    images_argument: Annotated[
        Path | None,
        typer.Argument(metavar="IMAGES", help="Folder of the images; the same as --images.", show_default=False),
    ] = None
    annotations: Annotated[Path | None, typer.Option(help="Box annotations, a JSON file in COCO format.")] = None
    images: Annotated[Path | None, typer.Option(help="Folder of the images (default: that of the annotations).")] = None
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Allow links to images outside their folder.")
    ] = False

    @property
    def file(self) -> Path:
        """The file of the annotations."""
        file = _only("annotations", self.annotations_argument, self.annotations)
        if file is None:
            raise ZooError("no box annotations are given; give a JSON file in COCO format, such as boxes.json")
        return file

    @property
    def folder(self) -> Path:
        """The folder of the images."""
        return _only("images", self.images_argument, self.images) or self.file.parent

    def read(self) -> CocoData:
        """The annotated images."""
        from fbnetv3_zoo.detection.data.coco import read_coco

        return read_coco(self.file, self.folder, follow_links=self.follow_links)


@dataclass(frozen=True, slots=True)
class TrainingBoxesOptions(BoxesOptions):
    """Annotations with their images for training and validation."""

    validation: Annotated[
        Path | None,
        typer.Option(help="Validation annotations, a JSON file in COCO format (default: some are held out)."),
    ] = None
    validation_images: Annotated[
        Path | None, typer.Option(help="Folder of the validation images (default: that of their annotations).")
    ] = None
    val_split: Annotated[
        float | None,
        typer.Option(help="Share of the images to hold out for validation.", show_default=str(VAL_SPLIT)),
    ] = None

    def check(self) -> None:
        """Raise :class:`ZooError` if options contradict each other."""
        if self.val_split is not None:
            check_number("--val-split", self.val_split, above=0, below=1)
            if self.validation is not None:
                raise ZooError("--validation and --val-split both say what to validate on; give only one")
        if self.validation is None and self.validation_images is not None:
            raise ZooError("--validation-images needs --validation, the annotations of these images")

    def split(self, seed: int) -> tuple[CocoData, CocoData]:
        """The images to train on, and those to validate on; without annotations for these, some are held out."""
        from fbnetv3_zoo.detection.data.coco import read_coco
        from fbnetv3_zoo.detection.data.hold_out import hold_out

        data = self.read()
        if self.validation is None:
            return hold_out(data, VAL_SPLIT if self.val_split is None else self.val_split, seed)
        folder = self.validation_images or self.validation.parent
        return data, read_coco(self.validation, folder, follow_links=self.follow_links)

    def described(self, data: CocoData, judged: CocoData, seed: int) -> str:
        """The numbers of images to train and validate on, and of boxes."""
        import numpy as np

        from ..progress import spread

        labels = np.concatenate([sample.labels for sample in data.samples])
        boxes = np.bincount(labels, minlength=1 + len(data.class_names))[1:]
        held_out = f" (held out by seed {seed})" if self.validation is None else ""
        return (
            f"{len(data):,} to train on, {len(judged):,} to validate on{held_out}; {len(data.class_names):,} classes "
            f"with {spread(boxes.tolist())} boxes each to train on"
        )


def _only(what: str, argument: Path | None, option: Path | None) -> Path | None:
    """The one that is given. Raises :class:`ZooError` if both are."""
    if argument is not None and option is not None:
        raise ZooError(f"{argument} and --{what} {option} both give {what}; give only one")
    return option if argument is None else argument


@dataclass(frozen=True, slots=True)
class DetectorOptions:
    """The detector, and the initial weights of its network."""

    title: ClassVar[str] = "Detector"
    model: Annotated[str, typer.Option(help="A published name or an arch JSON file.")] = "fbnetv3_a"
    kind: Annotated[Literal["c4", "fpn"], typer.Option(help="Conv4 backbone (C4) or feature pyramid (FPN).")] = "c4"
    width: Width = 1.0
    depth: Depth = 1.0
    size: Annotated[int | None, typer.Option(help="Shorter side of the scaled images in pixels (default: 800).")] = None
    settings: Annotated[
        Path | None, typer.Option(help="JSON file of RCNNSettings: image size, anchors, proposals (docs/detection.md).")
    ] = None
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Start from the model's published weights.")] = False
    weights: Annotated[str | None, typer.Option(help="Weights to start from: a file, a tag, a URL.")] = None

    @property
    def _shape(self) -> ArchOptions:
        return ArchOptions(width=self.width, depth=self.depth)

    def spec(self, data: CocoData) -> DetectorSpec:
        """The detector of the classes of ``data``; without a file of settings, its anchors are fitted to the boxes."""
        from fbnetv3_zoo.detection import DETECTORS
        from fbnetv3_zoo.detection.data.fitting import fitted_anchors
        from fbnetv3_zoo.detection.models.serialization import DetectorKind, DetectorSpec

        kind, settings, class_names = DetectorKind(self.kind), self._settings(), data.class_names
        if self.settings is None and kind is DetectorKind.C4:
            settings = fitted_anchors(data, settings)
        if self.model not in DETECTORS:
            arch = self._shape.arch_of(self.model)
            return DetectorSpec(class_names, kind=kind, settings=settings, arch=arch)
        if self._shape.reshape:
            raise ZooError(
                f"{self.model}: published detectors have one width and depth; leave out --width and --depth, or give "
                f"--model a network such as fbnetv3_a"
            )
        return DetectorSpec(class_names, kind=kind, settings=settings, published=self.model)

    def _settings(self) -> RCNNSettings:
        from fbnetv3_zoo.detection import RCNNSettings

        from ...utils.serialization import read_json

        if self.settings is not None:
            if self.size is not None:
                raise ZooError("--settings and --size both give the size of images; give only one")
            return read_json(RCNNSettings, self.settings)
        settings = RCNNSettings() if self.kind == "c4" else RCNNSettings(proposals=1000)
        if self.size is None:
            return settings
        check_whole("--size", self.size, at_least=_SIZES[0], at_most=_SIZES[1])
        return settings.of_size(self.size)

    def start(self) -> FBNet | None:
        """The network with its initial weights; None for random ones."""
        from fbnetv3_zoo.detection import DETECTORS

        from ...factory import create

        if self.pretrained and self.weights is not None:
            raise ZooError("--pretrained and --weights both give weights to start from; give only one")
        if not self.pretrained and self.weights is None:
            return None
        if self.model in DETECTORS:
            network = self.model.removesuffix("_detector")
            remedy = f"name its network, {network}, to start from the weights of that, or leave --pretrained out"
            raise ZooError(f"{self.model}: a published detector does not start from weights here; {remedy}")
        if not self._shape.reshape:
            return create(self.model, pretrained=self.weights or True)
        if self.weights is None:
            raise ZooError(
                f"{self.model}: its published weights only fit its own width and depth; "
                "leave out --width and --depth, or --pretrained"
            )
        return create(self._shape.arch_of(self.model), pretrained=self.weights)

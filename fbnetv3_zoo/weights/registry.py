"""The published weights: network, addresses, license, preprocessing and accuracy of each set.

Sources: the official FBNet model records (project mobile-vision) and timm's. Records are values: nothing here accesses
the network or imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType

from ..arch import Arch, Conv
from ..errors import ZooError, check_type, nearest
from ..preprocess import Preprocess
from ..zoo import ARCHS, PUBLISHED, find_arch
from .licenses import License, allows_commercial_use
from .url import file_name_of

_PACKAGE = "package:"
_FILES = Path(__file__).with_name("files")


class Layout(Enum):
    """Whose parameter names a file uses; see :mod:`fbnetv3_zoo.weights.convert`."""

    OFFICIAL = "official"
    TIMM = "timm"
    OWN = "fbnetv3_zoo"


class Evidence(Enum):
    """Source of an accuracy."""

    PAPER = "paper"
    PUBLISHER = "publisher's record"
    MEASURED = "measured by this project"


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracy on the ImageNet validation set in percent, at ``resolution`` pixels (None: top-5 not stated)."""

    top1: float
    top5: float | None
    resolution: int
    evidence: Evidence = Evidence.PUBLISHER

    def __str__(self) -> str:
        top5 = "" if self.top5 is None else f", top-5 {self.top5:.2f} %"
        return f"top-1 {self.top1:.2f} %{top5} at {self.resolution} px ({self.evidence.value})"


@dataclass(frozen=True, slots=True)
class WeightsSource:
    """A source of a file.

    ``address`` is an HTTP(S) address, ``hf-hub:owner/name``, ``package:file`` or a path. ``sha256`` is the file's
    SHA-256 in hexadecimal, or the leading digits that are published ("" for none).
    """

    address: str
    sha256: str = ""

    @property
    def file_name(self) -> str:
        """The name of the file."""
        if self.address.startswith("hf-hub:"):
            return "model.safetensors"
        return (
            file_name_of(self.address) if self.address.startswith(("http://", "https://")) else Path(self.address).name
        )


@dataclass(frozen=True, slots=True)
class WeightsEntry:
    """One published set of weights.

    ``arch`` is the network that they fit, with the changes of its publisher; ``sources`` are tried in order; ``note``
    is further information for users.
    """

    tag: str
    arch: Arch
    sources: tuple[WeightsSource, ...]
    layout: Layout | None
    license: License | None
    preprocess: Preprocess
    accuracy: tuple[Accuracy, ...] = ()
    imagenet_classes: bool = True
    note: str = ""

    @property
    def name(self) -> str:
        """Name of the network and tag, such as ``fbnetv3_e.fb_in1k``."""
        return f"{self.arch.name}.{self.tag}"

    @property
    def packaged(self) -> Path | None:
        """The path of the file if this package brings it."""
        _, prefix, name = self.sources[0].address.rpartition(_PACKAGE)
        return _FILES / name if prefix else None

    @property
    def commercial(self) -> bool:
        """Whether the license is known to allow commercial use."""
        return allows_commercial_use(self.license)

    def key(self, source: WeightsSource) -> str:
        """The name of the file at ``source`` in lock files and mirrors."""
        return f"{self.name}/{source.file_name}"

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The 1000 ImageNet class names (torchvision's list, BSD-3-Clause), or None. Imports torchvision."""
        if not self.imagenet_classes:
            return None
        from torchvision.models import MobileNet_V2_Weights

        return tuple(MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"])


_OFFICIAL_HOST = "https://dl.fbaipublicfiles.com/fbnet/models"

# fmt: off
_OFFICIAL_FILES = {
    "fbnet_a":        "20200103/rAuaZE/fbnet_a_f155351132",
    "fbnet_b":        "20200103/rAuaZE/fbnet_b_f153237418",
    "fbnet_c":        "20200103/rAuaZE/fbnet_c_f152910217",
    "fbnetv2_f1":     "20200325/dktSJh/FBNetV2_F1_f167001958",
    "fbnetv2_f2":     "20200318/ezwcZW/FBNetV2_F2_f167001918",
    "fbnetv2_f3":     "20200318/ezwcZW/FBNetV2_F3_f167001975",
    "fbnetv2_f4":     "20200325/dktSJh/FBNetV2_F4_f167001913",
    "fbnetv2_l1":     "20200422/ElRAUZ/FBNetV2_L1_f183461678",
    "fbnetv2_l2":     "20200318/NEPKxa/FBNetV2_L2_f167001961",
    "fbnetv2_l3":     "20200105/melBmS/dmasking_l3_f156819299",
    "dmasking_f1":    "20200104/hnYGKi/dmasking_f1_f156819307",
    "dmasking_f4":    "20200104/hnYGKi/dmasking_f4_f156704077",
    "dmasking_l2_hs": "20200104/hnYGKi/dmasking_l2_hs_f157689684",
    "fbnetv3_a":      "20201201/GtOtfw/FBNetV3_A_f235707940",
    "fbnetv3_b":      "20201201/GtOtfw/FBNetV3_B_f233607847",
    "fbnetv3_c":      "20201201/GtOtfw/FBNetV3_C_f234529537",
    "fbnetv3_d":      "20201201/GtOtfw/FBNetV3_D_f231225742",
    "fbnetv3_e":      "20201201/GtOtfw/FBNetV3_E_f230158956",
    "fbnetv3_f":      "20201201/GtOtfw/FBNetV3_F_f230161092",
    "fbnetv3_g":      "20201201/GtOtfw/FBNetV3_G_f226438997",
}

_TIMM_FILES = {
    #             file                           pixels  top-1
    "fbnetv3_b": ("fbnetv3_b_224-ead5d2a1.pth",    256,  79.15),
    "fbnetv3_d": ("fbnetv3_d_224-c98bce42.pth",    256,  79.68),
    "fbnetv3_g": ("fbnetv3_g_240-0b1df83b.pth",    288,  82.03),
}
# fmt: on

TIMM_NAMES = tuple(_TIMM_FILES)
"""The networks that timm has, too, by the names that they have there and here."""

_USUAL_RESIZE = 256
_TIMM_CROP = 0.95


def timm_form(arch: Arch) -> Arch:
    """``arch`` in timm's form: symmetric padding, no bias in the stem."""
    (stem, *rest), *stages = arch.with_symmetric_padding().stages
    if isinstance(stem, Conv):
        stem = replace(stem, bias=False)
    return replace(arch, stages=((stem, *rest), *stages))


def _official(name: str, folder: str) -> WeightsEntry:
    arch, published = ARCHS[name], PUBLISHED[name]
    return WeightsEntry(
        tag="fb_in1k",
        arch=arch,
        sources=(WeightsSource(f"{_OFFICIAL_HOST}/{folder}/model.pth"),),
        layout=Layout.OFFICIAL,
        license=License.CC_BY_NC,
        preprocess=Preprocess(published.resize or _USUAL_RESIZE, published.resolution),
        accuracy=(Accuracy(published.top1, published.top5, published.resolution),),
        note="" if published.resize else f"the publisher states no resize; {_USUAL_RESIZE}, the usual one, is assumed",
    )


def _timm(name: str, file: str, side: int, top1: float) -> WeightsEntry:
    release = "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights"
    return WeightsEntry(
        tag="ra2_in1k",
        arch=replace(timm_form(ARCHS[name]), resolution=side),
        sources=(
            WeightsSource(f"{release}/{file}", sha256=file.removesuffix(".pth").rpartition("-")[2]),
            WeightsSource(f"hf-hub:timm/{name}.ra2_in1k"),
        ),
        layout=Layout.TIMM,
        license=License.APACHE,
        preprocess=Preprocess(int(side / _TIMM_CROP), side),
        accuracy=(Accuracy(top1, None, side),),
        note="retrained by timm: symmetric padding, no bias in the stem",
    )


def _own(file: str, sha256: str, *, classes: int, note: str) -> WeightsEntry:
    name, _, tag = file.removesuffix(".safetensors").partition(".")
    arch = replace(ARCHS[name], num_classes=classes)
    return WeightsEntry(
        tag=tag,
        arch=arch,
        sources=(WeightsSource(f"{_PACKAGE}{file}", sha256),),
        layout=Layout.OWN,
        license=License.APACHE,
        preprocess=Preprocess(arch.resolution, arch.resolution),
        imagenet_classes=False,
        note=note,
    )


def _records() -> Iterator[WeightsEntry]:
    for name, folder in _OFFICIAL_FILES.items():
        yield _official(name, folder)
        if name in _TIMM_FILES:
            yield _timm(name, *_TIMM_FILES[name])
    yield _own(
        "fbnetv3_nano.zoo_v1.safetensors",
        "4e334f8070f827f833f43573fbacbb3f07515f70e632c47e31fb98f9ef549c72",
        classes=39,
        note="comes with the package; trained on characters, emoji and parts of photographs",
    )


RECORDS: Mapping[str, WeightsEntry] = MappingProxyType({record.name: record for record in _records()})


def list_models(pattern: str = "*", *, commercial: bool = False) -> list[str]:
    """Names of the networks that match ``pattern`` (shell wildcards), in order of publication.

    With ``commercial``, only those with published weights whose license is known to allow commercial use, which
    ``create(name, pretrained="commercial")`` takes.
    """
    check_type("pattern", pattern, str, "text, such as 'fbnetv3*'")
    names = [name for name in ARCHS if fnmatchcase(name, pattern)]
    if not commercial:
        return names
    allowed = {record.arch.name for record in RECORDS.values() if record.commercial}
    return [name for name in names if name in allowed]


def list_weights(pattern: str = "*") -> list[str]:
    """Names of the published weights that match ``pattern``: shell wildcards, or the name of a network."""
    check_type("pattern", pattern, str, "text, such as 'fbnetv3*'")
    return [name for name, record in RECORDS.items() if fnmatchcase(name, pattern) or record.arch.name == pattern]


list_pretrained = list_weights
"""The name of :func:`list_weights` in timm."""


def find_record(model: str, tag: str | None = None) -> WeightsEntry:
    """The record named ``model`` (``fbnetv3_e.fb_in1k``); for a network's name, that of ``tag`` (default: the first).

    Raises :class:`ZooError`, which names those that exist, for an unknown one.
    """
    if tag is None and model in RECORDS:
        return RECORDS[model]
    network, _, named = model.partition(".")
    of_network = {record.tag: record for record in RECORDS.values() if record.arch.name == network}
    if not of_network:
        if network in ARCHS:
            raise ZooError(f"{network}: no weights are published for this network; `fbnetv3 weights list` shows all")
        raise ZooError(f"unknown weights {model!r}{nearest(model, RECORDS)}; `fbnetv3 weights list` shows all")
    if named and tag not in (None, named):
        raise ZooError(f"{model}: is tagged {named!r}, not {tag!r}; name one tag")
    chosen = tag or named or next(iter(of_network))
    if chosen not in of_network:
        raise ZooError(f"{network}: no weights are tagged {chosen!r}; there are {', '.join(of_network)}")
    return of_network[chosen]


def find_commercial(model: str) -> WeightsEntry:
    """Of the weights of the network ``model``, or those named ``model``, the most accurate with commercial use allowed.

    Raises :class:`ZooError`, which names the networks that have such weights, if there are none.
    """
    network, _, tag = model.partition(".")
    allowed = [
        record
        for record in RECORDS.values()
        if record.commercial and record.arch.name == network and tag in ("", record.tag)
    ]
    if not allowed:
        others = ", ".join(list_models(commercial=True))
        raise ZooError(f"{model}: no published weights of it may be used commercially; those of {others} may")
    return max(allowed, key=lambda record: max((accuracy.top1 for accuracy in record.accuracy), default=0.0))


def find_network(source: str | Path | Arch) -> Arch:
    """As :func:`fbnetv3_zoo.zoo.find_arch`; the name of published weights gives the network in their form."""
    return RECORDS[source].arch if isinstance(source, str) and source in RECORDS else find_arch(source)

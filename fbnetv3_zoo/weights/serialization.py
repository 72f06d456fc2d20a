"""Our weight files: safetensors with a :class:`~fbnetv3_zoo.description.Description` in the metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from ..arch import Arch
from ..arch.torchvision_arch import AnyArch, TorchvisionArch
from ..description import Description, other_kind
from ..errors import ZooError, in_short
from ..models.fbnet import FBNet
from ..models.network import Network, network_of
from ..utils.atomic_write import replacing
from ..utils.paths import WEB_PAGE, check_file, is_web_page, read_file, to_path
from ..utils.safetensors_order import in_order
from ..utils.serialization import parse_json
from . import hub
from .cache import LARGEST_FILE, WeightsCache
from .effective_state import changed_layer, effective_state
from .repository import ENTRY, own_tensors
from .state_dict import assemble, check_fit, non_finite, skeleton

# Raised by safetensors and torch for damaged headers, found with 20,000 of them (tests/helpers/fuzz_headers.py).
_UNREADABLE = (SafetensorError, ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError)


def save(model: nn.Module, path: str | Path) -> None:
    """Write ``model`` to ``path`` (``.safetensors``), so that :func:`load` restores it from the file alone.

    ``model`` is an :class:`FBNet` or a model of torchvision from :func:`fbnetv3_zoo.create`, which may be compiled or
    wrapped (``DataParallel``, an averaged model). Pruned and parametrized weights are stored with their values in
    evaluation mode; the classifier of an :class:`FBNet` that was replaced may have another width. Raises
    :class:`ZooError`, before anything is written, for a network that :func:`load` could not restore.
    """
    network = network_of(model)
    if to_path("path", path).suffix != ".safetensors":
        raise ZooError(f"{path}: weights are saved as .safetensors; change the extension")
    if any(tensor.is_meta for tensor in network.state_dict().values()):
        raise ZooError(f"{path}: the network has no values (it is on the meta device); load weights into it first")
    tensors = effective_state(network)
    described = _described_by(tensors, network) if isinstance(network, FBNet) else network.description
    plain = skeleton(described.arch)
    expected = plain.state_dict()
    remedy = "undo what changed its layers (torch.nn.utils), or move the weights into a network that create() made"
    try:
        check_fit(tensors, expected, described.arch.name, str(path))
    except ZooError as error:
        raise ZooError(f"{error}; {remedy}") from None
    if change := changed_layer(network, plain):
        raise ZooError(f"{path}: {change}, which a file of weights does not keep; {remedy}")
    for key, fault in non_finite(tensors):
        raise ZooError(f"{path}: not written, as {key} cannot be used: {fault}; save weights from before that happened")
    write_tensors(path, {name: tensors[name] for name in expected}, described.to_metadata())


def _described_by(tensors: Mapping[str, Tensor], network: FBNet) -> Description:
    """The description of ``network`` with the number of classes of the classifier in ``tensors``."""
    weight, bias = tensors.get("classifier.weight"), tensors.get("classifier.bias")
    description, old = network.description, network.num_classes
    if weight is None or bias is None or weight.ndim != 2 or bias.shape != weight.shape[:1] or len(bias) in (0, old):
        return description
    return replace(description, arch=replace(network.arch, num_classes=len(bias)), class_names=None)


def load(path: str | Path, *, drop_rate: float = 0.0, drop_path_rate: float = 0.0) -> Network:
    """Load the network stored at ``path`` by :func:`save`, in evaluation mode, with preprocessing and class names.

    ``path`` may also be ``hf-hub:owner/name``, a repository written by :func:`fbnetv3_zoo.save_pretrained`.
    ``drop_rate`` and ``drop_path_rate`` are those of :class:`FBNet`. The network is an :class:`FBNet`, or if the file
    is of a model of torchvision, a :class:`~fbnetv3_zoo.models.torchvision_model.TorchvisionModel`. Raises
    :class:`ZooError` for a file that is missing, damaged or without a description.
    """
    file = open_weights(path)
    model = skeleton(file.own_description.arch, drop_rate=drop_rate, drop_path_rate=drop_path_rate)
    return assemble(model, file.own_description, file.tensors, file.name).eval()


@dataclass(frozen=True)
class WeightsFile:
    """The contents of a weight file, which is read once, so that what was checked is what is used.

    Errors begin with ``name``, a path or an address. ``tensors`` own their memory.
    """

    name: str
    tensors: dict[str, Tensor]
    metadata: Mapping[str, str]

    @cached_property
    def description(self) -> Description | None:
        """The description in a file of this project; None for others. Raises :class:`ZooError` if it is damaged."""
        try:
            return Description.from_metadata(self.metadata)
        except ZooError as error:
            raise ZooError(f"{self.name}: {error}") from None

    @property
    def own_description(self) -> Description:
        """The description of a file that must have one. Raises :class:`ZooError` if it has none."""
        if self.description is None:
            unknown = "does not say which network it is for; use create(MODEL, pretrained=...)"
            raise ZooError(f"{self.name}: {other_kind(self.metadata) or unknown}")
        return self.description


def open_weights(source: str | Path) -> WeightsFile:
    """Open a weight file of this project at a path or ``hf-hub:owner/name``. Raises :class:`ZooError` on failure."""
    to_path("path", source, "the path of a weight file, or 'hf-hub:owner/name'")
    if str(source).startswith("hf-hub:"):
        return parse(hub.contents_of(str(source), offline=WeightsCache().offline), str(source))
    return read_tensors(source)


def read_tensors(path: str | Path) -> WeightsFile:
    """The contents of the safetensors file at ``path``. Raises :class:`ZooError` if it cannot be read."""
    check_file(path, "a weight file")
    if Path(path).suffix != ".safetensors":
        raise ZooError(f"{path}: weights are read from .safetensors files only")
    return parse(read_weights(path), str(path))


def read_weights(path: str | Path) -> bytes:
    """The bytes of a weight file. Raises :class:`ZooError` if it cannot be read."""
    return read_file(path, "a weight file", at_most=LARGEST_FILE)


def parse(data: bytes, name: str) -> WeightsFile:
    """Parse the safetensors file ``data``. Raises :class:`ZooError`, which begins with ``name``, if it is damaged."""
    try:
        tensors, entries = from_bytes(data), _entries(data)
    except _UNREADABLE as error:
        if is_web_page(data[:512]):
            raise ZooError(f"{name}: {WEB_PAGE.format('weights')}") from None
        reason = in_short(error) if data else "the file is empty"
        raise ZooError(f"{name}: cannot be read as safetensors ({reason}); fetch or save it again") from None
    if unfit := next((key for key in tensors if not key.isprintable()), None):
        raise ZooError(f"{name}: cannot be read as safetensors ({unfit[:80]!r} is no tensor's name); save it again")
    if ENTRY in entries:
        try:
            tensors, entries = own_tensors(tensors, entries)
        except ZooError as error:
            raise ZooError(f"{name}: {error}") from None
    return WeightsFile(name, tensors, entries)


def _entries(data: bytes) -> dict[str, str]:
    """The metadata of an undamaged safetensors file."""
    header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")], "its header")
    entries: dict[str, str] = header.get("__metadata__") or {}
    return entries


def write_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically; the same tensors and entries give the same bytes."""
    try:
        data = in_order(to_bytes(tensors, metadata))
    except SafetensorError as error:
        raise ZooError(f"{path}: cannot be written ({in_short(error)})") from None
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def same_weights(one: AnyArch, other: AnyArch) -> bool:
    """Whether the networks differ in name, resolution, padding, input channels and classes at most."""
    if isinstance(one, TorchvisionArch) or isinstance(other, TorchvisionArch):
        return one.name == other.name

    def body(arch: Arch) -> tuple[object, int]:
        return arch.with_symmetric_padding().stages, arch.width_divisor

    return body(one) == body(other)

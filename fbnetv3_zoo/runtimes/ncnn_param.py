"""ncnn's models: a ``.param`` file with the layers as text, and their weights in a ``.bin`` file of the same name.

ncnn reads as many layers as the second line of the text declares, and nothing behind them. There our files have their
metadata, one entry a line: ``# KEY VALUE``, so that a program in any language finds it, and at the end a digest of the
weights and a seal (:mod:`fbnetv3_zoo.runtimes.seal`). ncnn itself crashes on many damaged files: without a seal that
fits, a pair is never passed to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ZooError
from ..preprocess import Preprocess
from ..utils.atomic_write import scratch, settled
from ..utils.digest import digest_of
from ..utils.paths import check_file, is_file, read_file
from . import sandbox
from .base import Floats, OpenModel, checked, described, missing_extra, silence, unreadable
from .seal import EMPTY, is_whole, sealed

if TYPE_CHECKING:
    import ncnn

KIND = "ncnn model"
INPUT, OUTPUT = "in0", "out0"
"""Names of the maps that pnnx gives to the images and the logits."""

DIGEST = "weights_blake3"
"""Metadata entry: the digest of the ``.bin`` file, in hexadecimal."""

_SEAL = "seal"
_MAGIC = b"7767517\n"
_LARGEST_TEXT = 16 << 20
_LINE_BREAK = re.compile(r"[\r\n] *")  # in metadata only between the parts of JSON
_REDUCED = re.compile(r".*(fp16|bf16).*")


def open_ncnn(path: Path, *, threads: int | None = None) -> OpenModel:
    """The model in ``path`` (``.param``) and its ``.bin`` file, run in float32, one image at a time.

    ``threads``: number of threads (default: ncnn's choice). Raises :class:`ZooError` for files that are missing,
    damaged or not of this project.
    """
    text, weights = _read_pair(path)
    description = described(entries_in(text), path, "ncnn")
    if not sandbox.known(".param", (text, weights)):
        sandbox.try_out(path, KIND, (text, weights))
    net = _loaded(path, text, weights, threads)

    def run(images: Floats) -> Floats:
        return _logits(net, images[0])[None]

    side = description.preprocess.resolution
    return checked(path, description, (1, description.arch.in_channels, side, side), run)


def entries_in(text: bytes) -> dict[str, str]:
    """The metadata in the content of a ``.param`` file; empty if there is none."""
    lines = (line[2:].partition(" ") for line in text.decode().split("\n") if line.startswith("# "))
    return {key: value for key, _, value in lines}


def with_entries(layers: bytes, weights: bytes, entries: Mapping[str, str], preprocess: Preprocess) -> bytes:
    """The content of a ``.param`` file: ``layers`` as pnnx wrote them, with metadata, digest and seal.

    Besides ``entries`` these are the names of input and output, and the normalization of pixels from 0 to 255 in the
    form of ncnn's ``substract_mean_normalize``.
    """
    known = {
        **entries,
        "input": INPUT,
        "output": OUTPUT,
        "mean_vals": " ".join(f"{255 * mean:.9g}" for mean in preprocess.mean),
        "norm_vals": " ".join(f"{1 / (255 * std):.9g}" for std in preprocess.std),
        DIGEST: digest_of(weights),
        _SEAL: EMPTY,
    }
    lines = (f"# {key} {_LINE_BREAK.sub('', value)}\n" for key, value in known.items())
    return sealed(layers + "".join(lines).encode())


def _read_pair(path: Path) -> tuple[bytes, bytes]:
    """The contents of the ``.param`` file ``path`` and of its ``.bin`` file, which are whole and belong together.

    Raises :class:`ZooError` if they are missing, damaged, or of different models.
    """
    check_file(path, "a model file")
    file, beside = settled(path, path.with_suffix(".bin"))
    if not is_file(beside):
        raise ZooError(f"{path}: its weights are missing; put {beside.name} beside it")
    text = read_file(file, "a model file", at_most=_LARGEST_TEXT)
    weights = read_file(beside, "a model file", at_most=sandbox.LARGEST_MODEL)
    check_pair(path, text, weights)
    return text, weights


def check_pair(path: Path, text: bytes, weights: bytes) -> None:
    """Raise :class:`ZooError` unless ``text``, the content of ``path``, and ``weights`` are an undamaged pair."""
    if not text.startswith(_MAGIC):
        raise unreadable(path, KIND, "it does not begin as one")
    try:
        text.decode()
    except UnicodeDecodeError:
        raise unreadable(path, KIND, "it is not UTF-8 text") from None
    layers = [line for line in text.split(b"\n")[2:] if line and not line.startswith(b"#")]
    declared = re.match(rb"(\d{1,6}) \d{1,6}\n", text[len(_MAGIC) :])
    if declared is None or len(layers) < int(declared[1]):
        raise unreadable(path, KIND, "layers are missing")
    entries = entries_in(text)
    if not entries:
        described(entries, path, "ncnn")
    if not is_whole(text):
        raise unreadable(path, KIND, "it is damaged: its digest is another")
    if entries.get(DIGEST) != digest_of(weights):
        raise unreadable(path, KIND, f"{path.with_suffix('.bin').name} is damaged or of another model")


def prepare() -> None:
    """Import what :func:`try_out` needs."""
    import ncnn  # noqa: F401


def try_out(parts: Sequence[bytes]) -> None:
    """Open the contents of both files and run an image of zeros, of the size that the metadata states."""
    import numpy as np

    description = described(entries_in(parts[0]), Path("net.param"), "ncnn")
    side = description.preprocess.resolution
    net = _loaded(Path("net.param"), parts[0], parts[1], 1)
    _logits(net, np.zeros((description.arch.in_channels, side, side), np.float32))


def _loaded(path: Path, text: bytes, weights: bytes, threads: int | None) -> ncnn.Net:
    """The network of a pair. It is read from copies, as the files may change after they were checked."""
    try:
        import ncnn
    except ImportError:
        raise missing_extra(path, "ncnn", "ncnn") from None
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    for reduced in filter(_REDUCED.fullmatch, dir(net.opt)):
        setattr(net.opt, reduced, False)
    if threads is not None:
        net.opt.num_threads = threads
    layers = text[: text.find(b"\n# ") + 1].decode()
    with scratch() as folder:
        copy = folder / "weights.bin"
        copy.write_bytes(weights)
        with silence():
            failed = net.load_param_mem(layers) or net.load_model(str(copy))
    if failed:
        raise unreadable(path, KIND, "ncnn refuses its layers or weights")
    return net


def _logits(net: ncnn.Net, image: Floats) -> Floats:
    """The logits of one image (channels, height, width)."""
    import ncnn
    import numpy as np

    extractor = net.create_extractor()
    extractor.input(INPUT, ncnn.Mat(image))
    failed, logits = extractor.extract(OUTPUT)
    if failed:
        raise ZooError("ncnn cannot compute it")
    return np.array(logits, dtype=np.float32)

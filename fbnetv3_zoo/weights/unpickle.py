"""The process that reads one pickled checkpoint: ``python -m fbnetv3_zoo.weights.unpickle PARENT``.

Standard input is the checkpoint, standard output becomes a safetensors file with its state dict, names unchanged. If
that fails, the exit code is 3, with one line on standard error. Memory, processor time and file size are limited,
``weights_only=True``, and the process ends when the process PARENT does.
:mod:`fbnetv3_zoo.weights.torch_checkpoint` starts it; nothing else unpickles.
"""

from __future__ import annotations

import os
import re
import sys
import zipfile
from collections import OrderedDict
from typing import IO, Any

from ..errors import ZooError, in_short
from ..utils.paths import WEB_PAGE, is_web_page
from ..utils.processes import end_with, limit

REFUSED = 3
_TORCH_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save began its files before version 1.6
_ZIP_MAGIC = b"PK\x03\x04"
_MOST_ENTRIES = 20_000
_MEMORY, _SECONDS = 512 << 20, 60  # beside what grows with the file


class _Unused:
    """Stands in for other objects in checkpoints of training scripts; ignores whatever is unpickled into it."""

    def __new__(cls, *_: object) -> _Unused:
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def _unused_mapping(*_: object) -> OrderedDict[Any, Any]:
    return OrderedDict()


_SYSTEMS = ("", "Posix", "Windows")
_NUMPY = ("multiarray.scalar", "multiarray._reconstruct", "numeric._frombuffer")
_UNUSED = (
    *("argparse.Namespace", "types.SimpleNamespace"),
    *(f"pathlib{place}.{pure}{kind}Path" for place in ("", "._local") for pure in ("", "Pure") for kind in _SYSTEMS),
    *(f"numpy.{name}" for name in ("dtype", "ndarray")),
    *(f"numpy.{core}.{name}" for core in ("core", "_core") for name in _NUMPY),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *("decimal.Decimal", "fractions.Fraction", "uuid.UUID"),
    *(f"builtins.{name}" for name in ("slice", "range", "frozenset", "object", "list", "dict", "tuple")),
    *(f"builtins.{name}" for name in ("int", "float", "str", "bool")),
)
_UNUSED_MAPPINGS = (
    "collections.defaultdict",
    *("yacs.config.CfgNode", "fvcore.common.config.CfgNode", "detectron2.config.config.CfgNode"),
    *("easydict.EasyDict", "addict.addict.Dict", "mmengine.config.config.ConfigDict"),
    *("lightning.fabric.utilities.data.AttributeDict", "lightning_fabric.utilities.data.AttributeDict"),
    "pytorch_lightning.utilities.parsing.AttributeDict",
)
"""Classes that a checkpoint may contain besides tensors. None of them is imported or created."""


def main(source: IO[bytes], target: IO[bytes], parent: int) -> int:
    """Read ``source``, write ``target`` and return the exit code; an error is one line on standard error."""
    try:
        end_with(parent)
        _read(source, target)
    except Exception as error:
        print(" ".join(_reason(error).split()), file=sys.stderr)
        return REFUSED
    return 0


def _read(source: IO[bytes], target: IO[bytes]) -> None:
    archive = _is_archive(source)
    import torch
    from safetensors.torch import save

    from .convert import find_state_dict

    size = os.fstat(source.fileno()).st_size
    limit(memory=_MEMORY + 4 * size, seconds=_SECONDS + size // 10_000_000, file_size=2 * size + (1 << 20))
    if archive:
        _refuse_other_archives(source)
    source.seek(0)
    stand_ins = [*((_Unused, name) for name in _UNUSED), *((_unused_mapping, name) for name in _UNUSED_MAPPINGS)]
    with torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
        loaded = torch.load(source, map_location="cpu", weights_only=True)
    if not isinstance(loaded, dict):
        raise ZooError(f"holds a {type(loaded).__name__}, not a state dict; save model.state_dict()")
    tensors = find_state_dict(loaded)
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_nested:
            raise ZooError(f"{name} is not a dense tensor; convert it with dense floating-point tensors")
        if not tensor.is_floating_point() and tensor.dtype is not torch.int64:
            raise ZooError(f"{name} is {tensor.dtype}; weights are floating point")
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > size:
        raise ZooError("its tensors are larger than the file")  # expanded views, or a storage shared by many
    target.write(save({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}))
    target.flush()


def _is_archive(source: IO[bytes]) -> bool:
    """Whether ``source`` is a zip file rather than of torch.save's older format. Raises if neither."""
    start = source.read(512)
    if start.startswith(_ZIP_MAGIC):
        return True
    if start[257:262] == b"ustar":
        raise ZooError("is a tar file, the format of the first PyTorch releases; save it again with torch.save")
    if not start.startswith(_TORCH_MAGIC):
        if is_web_page(start):
            raise ZooError(WEB_PAGE.format("weights"))
        kind = "a plain pickle" if start[:1] == b"\x80" else "no checkpoint"
        raise ZooError(f"is {kind}; give a file that torch.save wrote, or a .safetensors file")
    return False


def _refuse_other_archives(source: IO[bytes]) -> None:
    with zipfile.ZipFile(source) as archive:
        entries = archive.infolist()
    names = {entry.filename for entry in entries}
    if any(name.endswith("/constants.pkl") for name in names):
        raise ZooError("is a TorchScript program; save model.state_dict() instead")
    compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if compressed or len(names) < len(entries) or len(entries) > _MOST_ENTRIES:
        raise ZooError("is not written by torch.save: entries are compressed, of one name, or too many")


def _reason(error: Exception) -> str:
    """The reason of ``error`` in one short line."""
    text = str(error)
    if isinstance(error, ZooError):
        return text
    if isinstance(error, MemoryError) or "allocate memory" in text:
        return "needs more memory than a checkpoint of its size should"
    if match := re.search(r"GLOBAL (\S+) (?:was not an allowed global|whose module \S+ is blocked)", text):
        return f"holds more than tensors ({match[1]}); save model.state_dict() alone"
    reason = text.partition("WeightsUnpickler error: ")[2] or text  # what is before advises to switch the safety off
    return f"cannot be read as a checkpoint ({type(error).__name__}: {in_short(reason)[:120]})"


def _own_output() -> IO[bytes]:
    """The file behind standard output; everything printed afterwards goes to standard error."""
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return own


if __name__ == "__main__":
    with os.fdopen(0, "rb", closefd=False) as checkpoint, _own_output() as tensors_file:
        status = main(checkpoint, tensors_file, int(sys.argv[1]))
    sys.exit(status)

"""What torch's exporter gives, as an ONNX file that onnx has checked; for networks and for detectors."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbnetv3_zoo.errors import ZooError

if TYPE_CHECKING:
    import onnx


def write_graph(proto: Any, path: Path, metadata: Mapping[str, str]) -> None:
    """Write ``proto``, an ``onnx.ModelProto``, with ``metadata`` to ``path``; what onnx's checker refuses is raised."""
    import onnx

    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save_model(proto, path)


def read_graph(path: str | Path) -> onnx.ModelProto:
    """The graph in the ONNX file at ``path``. Raises :class:`ZooError` for what is missing, damaged or no ONNX file."""
    import onnx

    path = Path(path)
    if not path.is_file():
        raise ZooError(f"{path}: {'is a folder, not an ONNX file' if path.is_dir() else 'no such file'}")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and onnx's errors share no public base
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ZooError(f"{path}: cannot be read as ONNX ({reason})") from None
    return model


def entries_of(model: onnx.ModelProto) -> dict[str, str]:
    """The metadata of ``model``."""
    return {entry.key: entry.value for entry in model.metadata_props}


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keep the exporter's chatter, which is about its own internals, from the user."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)

"""What torch's exporter gives, as an ONNX file that onnx has checked; for networks and for detectors."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def write_graph(proto: Any, path: Path, metadata: Mapping[str, str]) -> None:
    """Write ``proto``, an ``onnx.ModelProto``, with ``metadata`` to ``path``; what onnx's checker refuses is raised."""
    import onnx

    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save_model(proto, path)


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

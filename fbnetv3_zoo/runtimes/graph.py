"""``.onnx`` files and their mobile form ``.ort`` on ONNX Runtime, without torch."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

from fbnetv3_zoo.runtimes.opened import Floats, Opened, check_file, checked, described, unreadable

if TYPE_CHECKING:
    import onnxruntime

KINDS = {".onnx": "ONNX", ".ort": "ORT"}
FORMS = {".onnx": "onnx", ".ort": "mobile"}


def session_options(threads: int | None = None) -> onnxruntime.SessionOptions:
    """Options for ``threads`` threads (default: one a core), without ONNX Runtime's messages."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    return options


def open_graph(path: Path, *, threads: int | None = None) -> Opened:
    """The model in ``path``, computed by ``threads`` threads (default: one a core).

    Raises :class:`~fbnetv3_zoo.errors.ZooError` for a file that is missing, damaged or not of this project.
    """
    import onnxruntime

    check_file(path)
    kind = KINDS[path.suffix]
    options = session_options(threads)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it tells of a second attempt, which fails as the first did
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        entries = session.get_modelmeta().custom_metadata_map
    except Exception as error:  # onnxruntime's own exception classes share no public base
        raise unreadable(path, kind, error) from None
    description = described(entries, path, FORMS[path.suffix])
    given, answered = session.get_inputs(), session.get_outputs()
    if len(given) != 1 or given[0].type != "tensor(float)":
        raise unreadable(path, kind, "it takes something else than a batch of prepared images; export it without that")
    name, output = given[0].name, answered[0].name

    def run(images: Floats) -> Floats:
        logits: Floats = session.run([output], {name: images})[0]
        return logits

    return checked(path, description, given[0].shape, run)

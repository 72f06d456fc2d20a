"""Shared by the exporters to other runtimes: the ONNX file they convert, and the comparison with it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fbnetv3_zoo.description import Description
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.models.network import Network, network_of
from fbnetv3_zoo.utils.atomic_write import replacing_together
from fbnetv3_zoo.utils.onnx_io import entries_of

from ..parity import TOLERANCE, FileParity, parity

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class ONNXSource:
    """An ONNX file with its metadata and, if given, its network; ``name`` is what errors call it."""

    name: str
    graph: Path
    entries: dict[str, str]
    model: Network | None

    @property
    def description(self) -> Description:
        """What the metadata say of the network."""
        description = Description.from_metadata(self.entries)
        assert description is not None, "the source was opened"
        return description


def source_graph(source: Network | str | Path, folder: Path, *, align: int = 1) -> ONNXSource:
    """``source`` as an ONNX file: a checked file, or a network exported to ``folder`` with maps padded to ``align``.

    Raises :class:`ZooError` if the file was not written by this project.
    """
    import onnx

    from fbnetv3_zoo.runtimes.ort import open_onnx

    from ..onnx.export import export_onnx

    if not isinstance(source, (str, os.PathLike)):
        model = network_of(source, "source")
        name, graph = model.arch.name, folder / "network.onnx"
        try:
            export_onnx(model, graph, align=align, batch_sizes=(1,))
        except ZooError as error:
            raise ZooError(str(error).replace(str(graph), name)) from None
    else:
        name, model, graph = str(source), None, Path(source)
        if graph.suffix != ".onnx":
            raise ZooError(f"{name}: give a network or an .onnx file written by `fbnetv3 export onnx`")
        open_onnx(graph)
    entries = entries_of(onnx.load(graph, load_external_data=False))
    return ONNXSource(name, graph, entries, model)


def compared(
    source: ONNXSource, draft: Path, path: Path, *, images: Sequence[Image.Image] | None = None,
    tolerance: float | None = None,
) -> dict[str, FileParity]:  # fmt: skip
    """Comparison of ``draft``, which will become ``path``, with ONNX Runtime and, if there is a network, PyTorch.

    Raises :class:`ZooError` if a logit differs by more than ``tolerance`` (default: 1e-4) of the largest one.
    """
    references: dict[str, Network | Path] = {"ONNX Runtime": source.graph}
    if source.model is not None:
        references = {"PyTorch": source.model, **references}
    return {name: checked_parity(reference, draft, path, images, tolerance) for name, reference in references.items()}


def checked_parity(
    reference: Network | Path, draft: Path, path: Path, images: Sequence[Image.Image] | None, tolerance: float | None
) -> FileParity:
    """:func:`parity` of ``draft``, under the name ``path``. Raises :class:`ZooError` if it exceeds ``tolerance``."""
    try:
        (comparison,) = parity(reference, [draft], images=images).files
        comparison = replace(comparison, path=path)
        comparison.check(TOLERANCE if tolerance is None else tolerance)
    except ZooError as error:
        raise ZooError(f"{str(error).replace(str(draft), str(path))}; nothing was written") from None
    return comparison


def keep_pair(draft: Path, path: Path) -> None:
    """Copy both files of a model into place, or neither: ``path``, and the ``.bin`` file beside it."""
    with replacing_together(path, path.with_suffix(".bin")) as temporary:
        for file in temporary:
            shutil.copyfile(draft.with_suffix(file.suffix), file)

"""Publish a network as a repository of the Hugging Face Hub, which timm, transformers and transformers.js load, too."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.models.network import Network, network_of
from fbnetv3_zoo.utils.atomic_write import replacing_in, scratch
from fbnetv3_zoo.utils.paths import FOREIGN, exists, is_ours, to_path
from fbnetv3_zoo.utils.serialization import json_text
from fbnetv3_zoo.weights import hub
from fbnetv3_zoo.weights.cache import WeightsCache
from fbnetv3_zoo.weights.card import model_card, neighbors_section
from fbnetv3_zoo.weights.repository import (
    architecture_of,
    config,
    metadata_for_others,
    preprocessor_config,
    tensors_for_others,
)
from fbnetv3_zoo.weights.serialization import load, read_tensors, save, write_tensors

from .onnx.export import export_onnx
from .quantization.config import QuantizationConfig, Target
from .quantization.quantize import quantize

if TYPE_CHECKING:
    from PIL import Image

LOG = logging.getLogger("fbnetv3_zoo")
CONFIG, PREPROCESSOR, CARD = "config.json", "preprocessor_config.json", "README.md"
GRAPHS, GRAPH, INT8 = "onnx", "model.onnx", "model_quantized.onnx"


def save_pretrained(
    model: Network, folder: str | Path, *, license: str | None = None, onnx: bool = True,
    images: Sequence[Image.Image] | str | Path | None = None,
) -> None:  # fmt: skip
    """Write ``model`` to ``folder`` as a repository: all files, or none.

    ``model.safetensors`` and a model card, ``README.md``, which ``load("hf-hub:owner/name")`` reads once uploaded;
    ``config.json`` and ``preprocessor_config.json``, with which timm, transformers and transformers.js load it; and
    ``onnx/model.onnx``, with the input ``pixel_values``. Where timm has the network, the tensors have its names;
    other networks are built by timm after :func:`fbnetv3_zoo.timm.register`. Other files in ``folder`` stay.

    Args:
        model: the network, as for :func:`fbnetv3_zoo.save`.
        folder: the folder.
        license: SPDX identifier for the card (default: that of the weights, if known).
        onnx: whether to write the ONNX file, which transformers.js needs.
        images: photographs like those it will see, or a folder of them, by which ``onnx/model_quantized.onnx`` is
            calibrated, the int8 form that transformers.js takes in browsers (default: do not write it).

    Raises :class:`ZooError` if the files cannot be written, if ``folder`` has files of these names that are of
    something else, or if ``folder/onnx`` has other files, or with ``onnx=False`` the graphs of older weights.
    """
    model, folder = network_of(model), to_path("folder", folder, "the path of a folder")
    if images is not None and not onnx:
        raise ZooError("images are for the int8 form of the ONNX file; leave out onnx=False")
    _check_free(folder)
    _check_graphs(folder / GRAPHS, replaced=onnx)
    names = [hub.FILE_NAME, CONFIG, PREPROCESSOR, CARD, *([GRAPHS] if onnx else [])]
    with scratch() as place:
        with _naming(folder, place):
            save(model, place / hub.FILE_NAME)
        network = load(place / hub.FILE_NAME)
        tensors = read_tensors(place / hub.FILE_NAME).tensors
        with replacing_in(folder, *names) as new, _naming(folder, new):
            _write_for_others(network, tensors, new, license)
            if onnx:
                _write_graphs(network, new / GRAPHS, images)


def push_to_hub(
    model: Network, repository: str, *, license: str | None = None, onnx: bool = True,
    images: Sequence[Image.Image] | str | Path | None = None, private: bool = False, token: str | None = None,
    message: str = "Add the model",
) -> str:  # fmt: skip
    """Upload ``model`` to the repository ``owner/name``, which is created if missing; see :func:`save_pretrained`.

    Graphs of older weights in the repository are removed. Returns the commit's address. Raises :class:`ZooError` if the
    Hub refuses or cannot be reached, and with the offline switch on before anything is written.
    """
    if WeightsCache().offline:
        raise ZooError(f"hf-hub:{repository}: cannot be written, since FBNETV3_ZOO_OFFLINE is set")
    with scratch() as folder:
        save_pretrained(model, folder, license=license, onnx=onnx, images=images)
        graphs = [f"{GRAPHS}/{name}" for name in (GRAPH, INT8)]
        return hub.upload(folder, repository, private=private, token=token, message=message, replaced=graphs)


@contextmanager
def _naming(folder: Path, place: Path) -> Iterator[None]:
    """Errors in the block name files in ``folder``, not those in the temporary ``place``."""
    try:
        yield
    except ZooError as error:
        raise ZooError(str(error).replace(str(place), str(folder))) from None


def _write_for_others(network: Network, tensors: dict[str, Any], folder: Path, license: str | None) -> None:
    """Write weights, configurations and card."""
    description = network.description
    renamed, layout = tensors_for_others(description, tensors)
    write_tensors(folder / hub.FILE_NAME, renamed, metadata_for_others(description, layout))
    for name, content in ((CONFIG, config(description)), (PREPROCESSOR, preprocessor_config(description))):
        (folder / name).write_text(f"{json_text(content, indent=2)}\n", encoding="utf-8")
    built = architecture_of(description.arch)
    card = model_card(network, license=license, library="fbnetv3_zoo" if built.own else "timm")
    (folder / CARD).write_text(card + neighbors_section(own=built.own), encoding="utf-8")


def _write_graphs(network: Network, folder: Path, images: Sequence[Image.Image] | str | Path | None) -> None:
    folder.mkdir()
    export_onnx(network.float(), folder / GRAPH, input_name="pixel_values", batch_sizes=(1, 3))
    if images is not None:
        # 7-bit weights, whose products no processor's 16-bit sums overflow: a browser runs on any
        report = quantize(folder / GRAPH, folder / INT8, images, config=QuantizationConfig(target=Target.AVX2))
        LOG.info(f"{INT8}: the same class as float for {report.agreement:.2%} of {report.images} images")


def _check_free(folder: Path) -> None:
    """Raise :class:`ZooError` if ``folder`` has some of the files to be written, and not from here."""
    weights = folder / hub.FILE_NAME
    if exists(weights) and is_ours(weights):
        return
    if found := [name for name in (hub.FILE_NAME, CONFIG, PREPROCESSOR, CARD) if exists(folder / name)]:
        raise ZooError(f"{folder / found[0]}: {FOREIGN}; give another folder, or move that file")


def _check_graphs(folder: Path, *, replaced: bool) -> None:
    """Raise :class:`ZooError` if ``folder`` has other files than ours, or any that are not ``replaced``."""
    found = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    if others := [name for name in found if name not in (GRAPH, INT8)]:
        raise ZooError(f"{folder}: has {others[0]}, which is not of a repository; move it, or give another folder")
    if found and not replaced:
        raise ZooError(f"{folder}: has graphs of older weights; leave out onnx=False, or give another folder")

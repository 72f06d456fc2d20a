"""What a repository of the Hugging Face Hub tells others of a network: timm, transformers, transformers.js.

Weights are in timm's names where timm has the network, and in ours otherwise; our own description is in the metadata of
the file of weights in both cases. Sources: timm ``models/_hub.py``, transformers ``models/timm_wrapper`` and
transformers.js ``image_processors_utils.js``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..arch import Arch
from ..arch.torchvision_arch import AnyArch
from ..description import Description
from ..errors import ZooError
from ..preprocess import Preprocess
from ..utils.serialization import json_text, parse_json
from ..zoo import ARCHS
from .convert import from_timm, timm_name, to_timm
from .registry import TIMM_NAMES, timm_form

ENTRY = "fbnetv3_zoo"
"""Entry in the metadata of a repository's weights with our entries, as JSON; ``format`` is what transformers wants."""

LAYOUT = "layout"
"""Entry among ours: "timm" if the tensors have timm's names."""

ANY = "fbnetv3_zoo"
"""Name of the model that :func:`fbnetv3_zoo.timm.register` adds for networks without a name of their own."""

_RESAMPLE = {"nearest": 0, "bilinear": 2, "bicubic": 3}  # Pillow's numbers, which transformers uses


@dataclass(frozen=True, slots=True)
class Architecture:
    """How timm builds a network: by ``name`` with ``arguments``; ``own``: after :func:`fbnetv3_zoo.timm.register`."""

    name: str
    arguments: dict[str, Any]
    own: bool


def architecture_of(arch: AnyArch) -> Architecture:
    """How timm builds ``arch``: as a network of its own, or as a published or any other network of ours."""
    channels = {} if arch.in_channels == 3 else {"in_chans": arch.in_channels}
    if isinstance(arch, Arch):
        try:
            return Architecture(timm_name(arch), channels, own=False)
        except ZooError:
            named = ARCHS.get(arch.name)
        if named is not None and arch.name not in TIMM_NAMES and arch == _adapted(named, arch):
            return Architecture(arch.name, channels, own=True)
    return Architecture(ANY, {"arch": json.loads(arch.to_json())}, own=True)


def _adapted(named: Arch, arch: Arch) -> Arch:
    """``named`` with the classes, channels and resolution of ``arch``, which timm's configuration has, too."""
    return replace(
        named, num_classes=arch.num_classes, in_channels=arch.in_channels, resolution=arch.resolution
    )  # fmt: skip


def tensors_for_others(description: Description, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The tensors under the names of whoever builds the network, and those names' layout, "timm" or "own"."""
    arch = description.arch
    if isinstance(arch, Arch) and not architecture_of(arch).own:
        return to_timm(arch, tensors), "timm"
    return dict(tensors), "own"


def metadata_for_others(description: Description, layout: str) -> dict[str, str]:
    """The metadata of the file of weights. transformers refuses files whose ``format`` is not that of a framework."""
    return {"format": "pt", ENTRY: json_text({**description.to_metadata(), LAYOUT: layout})}


def own_tensors(tensors: dict[str, Tensor], entries: Mapping[str, str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors under our names, and our entries, from a repository's file with the metadata ``entries``.

    Raises :class:`ZooError` if they are damaged.
    """
    found = parse_json(entries[ENTRY], "its description")
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ZooError("its description is not a map of texts")
    description = Description.from_metadata(found)
    if found.pop(LAYOUT, "own") != "timm" or description is None or not isinstance(description.arch, Arch):
        return tensors, found
    form = timm_form(description.arch)
    renamed = from_timm(form, tensors)
    if form != description.arch:  # its stem has a bias, which is in the mean of the norm that follows
        weight = renamed["stages.0.0.conv.weight"]
        renamed["stages.0.0.conv.bias"] = torch.zeros(len(weight), dtype=weight.dtype)
    return renamed, found


def config(description: Description) -> dict[str, Any]:
    """``config.json``, from which timm builds the network, and transformers by way of it."""
    arch, preprocess = description.arch, description.preprocess
    built = architecture_of(arch)
    names = description.class_names
    labels = {} if names is None else {
        "label_names": list(names),
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }  # fmt: skip
    return {
        "architecture": built.name,
        "model_type": "timm_wrapper",
        "num_classes": arch.num_classes,
        **({"model_args": built.arguments} if built.arguments else {}),
        "pretrained_cfg": {
            "tag": "fbnetv3_zoo",
            "input_size": [arch.in_channels, preprocess.resolution, preprocess.resolution],
            "min_input_size": [arch.in_channels, arch.min_resolution, arch.min_resolution],
            "interpolation": preprocess.interpolation.value,
            "crop_pct": crop_share(preprocess),
            "crop_mode": "center",
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "num_classes": arch.num_classes,
            "first_conv": "stages.0.0.conv" if built.own else "conv_stem",
            "classifier": "classifier",
            **({} if description.license is None else {"license": description.license.lower()}),
        },
        **labels,
    }


def crop_share(preprocess: Preprocess) -> float:
    """The central crop's share of the resized side, from which timm computes that side, rounded down."""
    share = preprocess.resolution / preprocess.resize
    exact = math.floor(preprocess.resolution / share) == preprocess.resize
    return share if exact else preprocess.resolution / (preprocess.resize + 0.5)


def preprocessor_config(description: Description) -> dict[str, Any]:
    """``preprocessor_config.json``: as transformers' BiT does, shorter side, central crop, normalization."""
    preprocess = description.preprocess
    side = preprocess.resolution
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": description.arch.in_channels == 3,
        "do_resize": True,
        "size": {"shortest_edge": preprocess.resize},
        "resample": _RESAMPLE[preprocess.interpolation.value],
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }

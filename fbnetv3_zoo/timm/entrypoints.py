"""What timm calls to build a network of this project, and what it is told of the network's weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from timm.models import PretrainedCfg, generate_default_cfgs, is_model, register_model, resolve_pretrained_cfg

from ..arch.torchvision_arch import AnyArch, arch_from_json
from ..errors import ZooError
from ..factory import create
from ..models.fbnet import FBNet
from ..models.features import FBNetFeatures
from ..models.torchvision_model import TorchvisionModel
from ..preprocess import Preprocess
from ..utils.paths import exists, is_folder
from ..weights.cache import WeightsCache
from ..weights.registry import RECORDS, WeightsEntry
from ..weights.repository import ANY
from ..zoo import ARCHS

__all__: list[str] = []  # timm appends the name of each network that it is given


def add() -> list[str]:
    """Register the networks that timm does not know, and :data:`ANY`; return their names."""
    names = [name for name in (*ARCHS, ANY) if not is_model(name)]
    for name in names:
        register_model(_entrypoint(name))
    return names


def _configs() -> Iterator[tuple[str, PretrainedCfg]]:
    for name, arch in ARCHS.items():
        records = [record for record in RECORDS.values() if record.arch.name == name]
        if not records:
            yield name, _config(arch, Preprocess.for_arch(arch))
        for record in records:
            yield record.name, _config(record.arch, record.preprocess, record)


def _config(arch: AnyArch, preprocess: Preprocess, record: WeightsEntry | None = None) -> PretrainedCfg:
    channels, side, least = arch.in_channels, preprocess.resolution, arch.min_resolution
    return PretrainedCfg(
        url=record.sources[0].address if record else None,
        input_size=(channels, side, side),
        min_input_size=(channels, least, least),
        crop_pct=side / preprocess.resize,
        interpolation=preprocess.interpolation.value,
        mean=preprocess.mean,
        std=preprocess.std,
        num_classes=arch.num_classes,
        first_conv="stages.0.0.conv",
        classifier="classifier",
        license=record.license.value.lower() if record and record.license else None,
    )


default_cfgs = generate_default_cfgs(dict(_configs()))  # where timm looks for them when a network is registered


def _entrypoint(name: str) -> Callable[..., FBNet | FBNetFeatures | TorchvisionModel]:
    """The function that timm calls for the network ``name``, with the arguments of ``timm.create_model``.

    That of :data:`ANY` also takes ``arch``, the network as a value: what an arch JSON file has.
    """

    def build(
        pretrained: bool = False, *, num_classes: int | None = None, in_chans: int | None = None,
        drop_rate: float = 0.0, drop_path_rate: float = 0.0, features_only: bool = False,
        out_indices: Sequence[int] | None = None, pretrained_cfg: str | dict[str, Any] | None = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None, cache_dir: str | Path | None = None,
        pretrained_model_args: Mapping[str, Any] | None = None, arch: Mapping[str, Any] | None = None,
    ) -> FBNet | FBNetFeatures | TorchvisionModel:  # fmt: skip
        network = _network(name, arch)
        if not isinstance(network, str) and pretrained_cfg is None:
            pretrained_cfg = _config(network, Preprocess.for_arch(network)).to_dict()  # type: ignore[no-untyped-call]
        config = resolve_pretrained_cfg(name, pretrained_cfg, pretrained_cfg_overlay)
        model = create(
            network, pretrained=_weights(name, config) if pretrained else False,
            num_classes=config.num_classes if num_classes is None else num_classes,
            in_chans=config.input_size[0] if in_chans is None else in_chans,
            drop_rate=drop_rate, drop_path_rate=drop_path_rate,
            cache=None if cache_dir is None else WeightsCache(Path(cache_dir)),
        )  # fmt: skip
        if out_indices is not None and not features_only:
            raise ZooError("out_indices selects feature maps; add features_only=True")
        made = FBNetFeatures(model, out_indices) if features_only else model
        described = config.to_dict()  # type: ignore[no-untyped-call]
        vars(made).update(pretrained_cfg=described, default_cfg=described)
        return made

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"{name}, built by fbnetv3_zoo."
    return build


def _network(name: str, arch: Mapping[str, Any] | None) -> str | Any:
    """What :func:`fbnetv3_zoo.create` builds: a published network, or with :data:`ANY` the one that ``arch`` has."""
    if (arch is None) is (name == ANY):
        raise ZooError(f"{name}: give arch, what an arch JSON file has" if arch is None else f"{name}: takes no arch")
    return name if arch is None else arch_from_json(json.dumps(arch))


def _file_in(place: Path) -> str:
    """``place``, or if it is a folder that timm wrote (``local-dir:FOLDER``), the file of weights in it."""
    files = [place / name for name in ("model.safetensors", "pytorch_model.bin")]
    return str(next(filter(exists, files), files[0]) if is_folder(place) else place)


def _weights(name: str, config: PretrainedCfg) -> str | bool:
    """The weights that ``config`` describes, as :func:`fbnetv3_zoo.create` takes them."""
    if config.state_dict is not None:
        raise ZooError(f"{name}: a state_dict in pretrained_cfg is not read; give a file, or load it into the model")
    record = RECORDS.get(f"{name}.{config.tag}")
    if config.file:
        return _file_in(Path(config.file))
    if record is not None and config.url == record.sources[0].address:
        return record.tag
    if config.hf_hub_id:
        return f"hf-hub:{config.hf_hub_id}"
    return config.url if isinstance(config.url, str) else True

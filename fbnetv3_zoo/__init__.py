"""FBNetV3 and its family: define, create, train, export and run small, accurate vision networks.

Names resolve on first use, so that importing the package costs nothing; those who use no network import no torch.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fbnetv3_zoo.arch import Arch
    from fbnetv3_zoo.cost import Cost, cost_of
    from fbnetv3_zoo.errors import ZooError
    from fbnetv3_zoo.export import export_onnx
    from fbnetv3_zoo.factory import create
    from fbnetv3_zoo.images import read_image
    from fbnetv3_zoo.model import FBNet
    from fbnetv3_zoo.preprocess import Preprocess
    from fbnetv3_zoo.weights.files import load, save
    from fbnetv3_zoo.weights.publish import push_to_hub, save_pretrained
    from fbnetv3_zoo.weights.records import list_weights
    from fbnetv3_zoo.weights.store import Store
    from fbnetv3_zoo.zoo import list_models

__version__ = "0.1.0"

# in a checkout, search, detection and export lie beside this folder
if not Path(__file__).with_name("search").exists():
    __path__.append(str(Path(__file__).parents[1]))

_HOMES = {
    "Arch": "arch",
    "Cost": "cost",
    "FBNet": "model",
    "Preprocess": "preprocess",
    "Store": "weights.store",
    "ZooError": "errors",
    "cost_of": "cost",
    "create": "factory",
    "export_onnx": "export",
    "list_models": "zoo",
    "list_weights": "weights.records",
    "load": "weights.files",
    "push_to_hub": "weights.publish",
    "read_image": "images",
    "save": "weights.files",
    "save_pretrained": "weights.publish",
}

__all__ = [
    "Arch", "Cost", "FBNet", "Preprocess", "Store", "ZooError", "cost_of", "create", "export_onnx", "list_models",
    "list_weights", "load", "push_to_hub", "read_image", "save", "save_pretrained",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""FBNetV3 and its family: define, create, train, export and run small, accurate vision networks.

Names resolve on first use, so that importing the package costs nothing; those who use no network import no torch.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fbnetv3_zoo.export import export_onnx

    from .arch import Arch
    from .arch.cost import Cost, cost_of
    from .errors import ZooError
    from .factory import create
    from .images import read_image
    from .models.fbnet import FBNet
    from .preprocess import Preprocess
    from .weights.cache import WeightsCache
    from .weights.publish import push_to_hub, save_pretrained
    from .weights.registry import list_weights
    from .weights.serialization import load, save
    from .zoo import list_models

__version__ = "0.1.0"

# in a checkout, search, detection and export lie beside this folder
if not Path(__file__).with_name("search").exists():
    __path__.append(str(Path(__file__).parents[1]))

_HOMES = {
    "Arch": "arch",
    "Cost": "arch.cost",
    "FBNet": "models.fbnet",
    "Preprocess": "preprocess",
    "WeightsCache": "weights.cache",
    "ZooError": "errors",
    "cost_of": "arch.cost",
    "create": "factory",
    "export_onnx": "export",
    "list_models": "zoo",
    "list_weights": "weights.registry",
    "load": "weights.serialization",
    "push_to_hub": "weights.publish",
    "read_image": "images",
    "save": "weights.serialization",
    "save_pretrained": "weights.publish",
}

__all__ = [
    "Arch", "Cost", "FBNet", "Preprocess", "WeightsCache", "ZooError", "cost_of", "create", "export_onnx",
    "list_models", "list_weights", "load", "push_to_hub", "read_image", "save", "save_pretrained",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

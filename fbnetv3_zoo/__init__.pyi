# The public names: read by type checkers, and by lazy_loader, which imports each on first use.

from . import (
    detection as detection,
    export as export,
    recipes as recipes,
    search as search,
    timm as timm,
    training as training,
)
from .arch import Arch as Arch
from .arch.cost import Cost as Cost
from .classify import Classifier as Classifier
from .errors import ZooError as ZooError
from .export import (
    export_onnx as export_onnx,
    push_to_hub as push_to_hub,
    save_pretrained as save_pretrained,
)
from .factory import (
    create as create,
    create_model as create_model,
)
from .images import read_image as read_image
from .models.fbnet import FBNet as FBNet
from .preprocess import Preprocess as Preprocess
from .weights.cache import WeightsCache as WeightsCache
from .weights.registry import (
    list_models as list_models,
    list_pretrained as list_pretrained,
    list_weights as list_weights,
)
from .weights.serialization import (
    load as load,
    save as save,
)
from .zoo import cost_of as cost_of

__version__: str
__all__: list[str]

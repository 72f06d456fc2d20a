# The public names: read by type checkers, and by lazy_loader, which imports each on first use.

from .plan import (
    DMASKING_PLANS as DMASKING_PLANS,
    DNAS_PLANS as DNAS_PLANS,
    Absolute as Absolute,
    Power as Power,
    Product as Product,
    Sum as Sum,
    SupernetPlan as SupernetPlan,
    find_supernet_plan as find_supernet_plan,
)
from .presets import (
    LAYER_SPACES as LAYER_SPACES,
    find_layer_space as find_layer_space,
)
from .result import (
    SampledNetwork as SampledNetwork,
    SupernetEpoch as SupernetEpoch,
    SupernetResult as SupernetResult,
)
from .run import (
    search_supernet as search_supernet,
)
from .space import (
    Layer as Layer,
    LayerSpace as LayerSpace,
)
from .supernet import Supernet as Supernet

__all__: list[str]

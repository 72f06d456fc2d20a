# The public names: read by type checkers, and by lazy_loader, which imports each on first use.

from .evaluation.function import FunctionEvaluator as FunctionEvaluator
from .evaluation.tabular import (
    RecordedCosts as RecordedCosts,
    RecordedCurves as RecordedCurves,
    Recording as Recording,
)
from .evaluation.training import TrainingEvaluator as TrainingEvaluator
from .evaluation.trial import (
    Evaluator as Evaluator,
    Executor as Executor,
    Failure as Failure,
    Limits as Limits,
    Outcome as Outcome,
    Task as Task,
    Trial as Trial,
)
from .executors import (
    InProcess as InProcess,
    LocalPool as LocalPool,
    RayExecutor as RayExecutor,
    find_executor as find_executor,
)
from .journal import Journal as Journal
from .notes import Winner as Winner
from .plan import (
    PLANS as PLANS,
    SearchPlan as SearchPlan,
    find_plan as find_plan,
)
from .predictors.predictor import (
    MLP as MLP,
    Pretraining as Pretraining,
    Trees as Trees,
    fit as fit,
    pretrain_encoder as pretrain_encoder,
)
from .report.page import write_report as write_report
from .result import SearchResult as SearchResult
from .run import (
    Search as Search,
    SearchCallback as SearchCallback,
    run_search as run_search,
)
from .space.arch_space import (
    ConvChoices as ConvChoices,
    Networks as Networks,
    PoolingChoices as PoolingChoices,
    ResidualChoices as ResidualChoices,
)
from .space.costs import (
    Bound as Bound,
    NetworkCosts as NetworkCosts,
    parse_constraint as parse_constraint,
)
from .space.dimension import (
    Choice as Choice,
    Dimension as Dimension,
    Levels as Levels,
    Range as Range,
)
from .space.presets import SPACES as SPACES
from .space.recipe_space import (
    Recipes as Recipes,
    Setting as Setting,
)
from .space.sampling import draw_pool as draw_pool
from .space.space import (
    Candidate as Candidate,
    Space as Space,
    find_space as find_space,
)
from .stages.evolution import (
    EvolutionConfig as EvolutionConfig,
    evolve as evolve,
    pareto as pareto,
)
from .stages.iterative import (
    IterativeConfig as IterativeConfig,
    IterativeSearch as IterativeSearch,
)
from .supernet.plan import (
    DMASKING_PLANS as DMASKING_PLANS,
    DNAS_PLANS as DNAS_PLANS,
    Absolute as Absolute,
    Product as Product,
    Sum as Sum,
    SupernetPlan as SupernetPlan,
)
from .supernet.presets import LAYER_SPACES as LAYER_SPACES
from .supernet.result import SupernetResult as SupernetResult
from .supernet.run import (
    SupernetCallback as SupernetCallback,
    search_supernet as search_supernet,
)
from .supernet.space import (
    Layer as Layer,
    LayerSpace as LayerSpace,
)
from .supernet.supernet import Supernet as Supernet

__all__: list[str]

"""A differentiable search as one value, and the shipped plans."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from fbnetv3_zoo.errors import ZooError, check_number, check_type, check_whole, nearest
from fbnetv3_zoo.recipes import RECIPES, SGD, Augmentation, CosineDecay, Recipe
from fbnetv3_zoo.utils.serialization import find, from_json, to_json

from ..space import Bound, parse_constraint
from .expected_cost import COSTS
from .presets import TINY_DMASKING, TINY_DNAS, V1, V2
from .space import LayerSpace


class Power(Enum):
    """What is raised to a power."""

    LOGARITHM = "logarithm"
    COST = "cost"


@dataclass(frozen=True, slots=True)
class Product:
    """Cross entropy x ``alpha`` x log(cost) ^ ``beta`` (FBNet, section 3.1); latency counts in microseconds.

    ``alpha`` scales the whole loss, and Adam's steps do not depend on that: ``beta`` weighs the cost. If the ``power``
    is that of the cost, log(cost ^ ``beta``), as in FBNet's text and code, ``beta`` is a factor as well, and nothing
    weighs the cost; so that is not the default.
    """

    alpha: float = 0.2
    beta: float = 0.6
    power: Power = Power.LOGARITHM

    def __post_init__(self) -> None:
        check_number("Product.alpha", self.alpha, above=0)
        check_number("Product.beta", self.beta, at_least=0, at_most=10)
        check_type("Product.power", self.power, Power, "a Power")
        if self.power is Power.COST and not self.beta:
            raise ZooError("Product.beta is 0, and log(cost ^ 0) is 0; give a beta above 0")


@dataclass(frozen=True, slots=True)
class Sum:
    """Cross entropy + ``alpha`` x cost / scale (FBNetV2, section 3.4).

    The scale is the plan's target, else the cost of the dearest network.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_number("Sum.alpha", self.alpha, at_least=0)


@dataclass(frozen=True, slots=True)
class Absolute:
    """Cross entropy + ``alpha`` x |cost / target - 1| (the reward of TuNAS, arXiv 2008.06120): leads to the target."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_number("Absolute.alpha", self.alpha, at_least=0)


_COLDEST = 1e-3
"""At lower temperatures the gradient of the softmax vanishes, and finally its value overflows."""

CostLoss: TypeAlias = Product | Sum | Absolute
"""How the cost enters the loss of the choices."""


@dataclass(frozen=True)
class SupernetPlan:
    """A whole differentiable search.

    ``recipe`` trains the weights on a part of the training images; from epoch ``choice_epoch`` (from 0) on, Adam
    trains the choices in turn with them, at ``choice_rate`` with ``choice_decay`` (added to the gradient), on the other
    part, a ``choice_share`` of the images. The temperature of the Gumbel softmax begins at ``temperature`` and is
    multiplied by exp(-``cooling``) after every epoch. ``loss`` determines how ``cost`` enters the loss. The resulting
    network meets the upper bound of ``target`` (None: the most probable network); ``draws`` others are drawn from the
    distribution, and also meet its lower bound. All randomness derives from the recipe's seed.
    """

    name: str
    space: LayerSpace
    recipe: Recipe
    cost: str = "macs"
    loss: CostLoss = Product()
    target: Bound | None = None
    choice_epoch: int = 10
    choice_rate: float = 0.01
    choice_decay: float = 5e-4
    choice_share: float = 0.2
    temperature: float = 5.0
    cooling: float = 0.045
    draws: int = 6

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{,99}", self.name):
            raise ZooError(f"SupernetPlan.name is {self.name!r}; use letters, digits, '.', '_' and '-', at most 100")
        check_type("SupernetPlan.space", self.space, LayerSpace, "a LayerSpace")
        check_type("SupernetPlan.recipe", self.recipe, Recipe, "a Recipe")
        check_type("SupernetPlan.loss", self.loss, Product | Sum | Absolute, "a Product, Sum or Absolute")
        if self.cost not in COSTS:
            raise ZooError(
                f"SupernetPlan.cost is {self.cost!r}{nearest(str(self.cost), COSTS)}; choose from {', '.join(COSTS)}"
            )
        self._check_target()
        if not self.space.dimensions:
            raise ZooError(f"space {self.space.name} has one network; there is nothing to search")
        if self.recipe.stochastic_depth or self.recipe.weight_levels:
            raise ZooError(
                "SupernetPlan.recipe: supernets know no stochastic_depth and no weight_levels; set both to 0"
            )
        if self.recipe.balanced or self.recipe.frozen_stages or self.recipe.patience:
            raise ZooError("SupernetPlan.recipe: supernets know no balanced, frozen_stages or patience; leave them out")
        check_whole("SupernetPlan.choice_epoch", self.choice_epoch, at_least=0, at_most=self.recipe.epochs - 1)
        check_number("SupernetPlan.choice_rate", self.choice_rate, above=0)
        check_number("SupernetPlan.choice_decay", self.choice_decay, at_least=0)
        check_number("SupernetPlan.choice_share", self.choice_share, above=0, below=1)
        check_number("SupernetPlan.temperature", self.temperature, above=0)
        check_number("SupernetPlan.cooling", self.cooling, at_least=0)
        if (coldest := self.temperature_at(self.recipe.epochs - 1)) < _COLDEST:
            raise ZooError(
                f"SupernetPlan.cooling is {self.cooling!r}: the temperature falls to {coldest:.3g}, it must stay at "
                f"least {_COLDEST:g}; lower cooling or raise temperature"
            )
        check_whole("SupernetPlan.draws", self.draws, at_least=0)

    def _check_target(self) -> None:
        if self.target is None:
            if isinstance(self.loss, Absolute):
                raise ZooError("SupernetPlan.target is None; a loss of the distance from the target needs one")
            return
        check_type("SupernetPlan.target", self.target, Bound, "a Bound or None")
        if self.target.cost != self.cost:
            raise ZooError(f"SupernetPlan.target is on {self.target.cost}, the cost is {self.cost}; give both the same")
        if self.target.at_most == float("inf"):
            raise ZooError(f"SupernetPlan.target is {self.target}; it needs an upper bound, such as {self.cost}<=1M")

    def temperature_at(self, epoch: int) -> float:
        """The temperature in ``epoch`` (from 0). FBNet, section 3.2."""
        return self.temperature * math.exp(-self.cooling * epoch)

    def with_epochs(self, epochs: int) -> SupernetPlan:
        """The same search in ``epochs`` epochs, with the beginning of the choices and the cooling scaled to it."""
        check_whole("epochs", epochs)
        before = self.recipe.epochs
        return replace(
            self, recipe=replace(self.recipe, epochs=epochs), cooling=self.cooling * before / epochs,
            choice_epoch=min(epochs - 1, round(self.choice_epoch * epochs / before)),
        )  # fmt: skip

    @property
    def result_name(self) -> str:
        """The name of the result, such as ``mine-macs-1M``."""
        return self.name if self.target is None else f"{self.name}-{self.target.in_a_name}"

    def to_json(self) -> str:
        """This plan as JSON text; :meth:`from_json` gives an equal value back."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> SupernetPlan:
        """The plan in ``text``. Raises :class:`ZooError` naming the field that is wrong."""
        return from_json(cls, text)


# Epochs, learning rate, momentum and decay are those common to public re-implementations of FBNet's search; batch and
# schedule are ours
_RECIPE = Recipe(
    epochs=90, batch_size=192, optimizer=SGD(nesterov=False), learning_rate=0.1, schedule=CosineDecay(),
    augmentation=Augmentation(crop_area=0.08, flip=0.5), weight_decay=1e-4, ema_decay=0.999,
)  # fmt: skip
_DIGITS = replace(
    RECIPES["digits"], epochs=30, batch_size=32, learning_rate=0.05, warmup_epochs=2, schedule=CosineDecay(),
    label_smoothing=0.0,
)  # fmt: skip
_TINY = SupernetPlan(
    "dnas-tiny", TINY_DNAS, _DIGITS, loss=Absolute(), target=parse_constraint("macs<=1M")[0], choice_epoch=6,
    choice_rate=0.05, choice_decay=0.0, choice_share=0.4, cooling=0.08,
)  # fmt: skip

DNAS_PLANS: Mapping[str, SupernetPlan] = MappingProxyType(
    {
        "paper": SupernetPlan("dnas", V1, _RECIPE),
        "tiny": _TINY,
    }
)
"""FBNet's search, and one that takes minutes on the digits."""

DMASKING_PLANS: Mapping[str, SupernetPlan] = MappingProxyType(
    {
        "paper": SupernetPlan("dmasking", V2, _RECIPE, loss=Sum(0.2)),
        "tiny": replace(_TINY, name="dmasking-tiny", space=TINY_DMASKING),
    }
)
"""FBNetV2's search, and one that takes minutes on the digits."""


def find_supernet_plan(source: str | Path | SupernetPlan, plans: Mapping[str, SupernetPlan]) -> SupernetPlan:
    """The plan that ``source`` stands for: a value, a name of ``plans``, or the path of a JSON file."""
    return find(SupernetPlan, source, plans, what="plan", rest=f"shipped are {', '.join(plans)}, others are files")

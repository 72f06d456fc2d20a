"""All blocks that the networks of a supernet's space can have: what a latency table for it has to hold."""

from __future__ import annotations

from fbnetv3_zoo.arch import Activation
from fbnetv3_zoo.arch.latency import BlockKey, distinct_blocks
from fbnetv3_zoo.errors import ZooError

from .expected_cost import classifier_table, layer_table
from .space import LayerSpace


def layer_blocks(space: LayerSpace) -> tuple[BlockKey, ...]:
    """Every block of every network of ``space`` at every resolution, each once, sorted; the classifiers too."""
    tables = [layer_table(space, number) for number in range(len(space.layers))]
    found = {key for table in tables for key in distinct_blocks(table) if not key.classifier}
    return tuple(sorted(found | {key for key in distinct_blocks(classifier_table(space)) if key.classifier}))


def activation_of(space: LayerSpace) -> Activation:
    """The activation of all blocks of ``space``. Raises :class:`ZooError` where they have several."""
    if len(space.activations) != 1:
        listed = ", ".join(sorted(activation.value for activation in space.activations)) or "none"
        raise ZooError(f"space {space.name}: its blocks have the activations {listed}; a latency table has one")
    return next(iter(space.activations))

"""What changes when a detector is trained, and its loss."""

from __future__ import annotations

from torch import Tensor
from torchvision.models.detection import FasterRCNN

from fbnetv3_zoo.recipes import Recipe
from fbnetv3_zoo.training.distributed import World
from fbnetv3_zoo.training.execution import Execution
from fbnetv3_zoo.training.learner import BaseLearner, synchronized

from .batches import DetectionBatch


class DetectorLearner(BaseLearner[DetectionBatch]):
    """Detector, optimizer and moving average of a run; the model is trained in place."""

    def __init__(self, model: FasterRCNN, recipe: Recipe, *, execution: Execution, world: World) -> None:
        super().__init__(synchronized(model, world).to(world.device), recipe, execution=execution, world=world)

    @property
    def result(self) -> FasterRCNN:
        """The detector that a run returns: the average, if there is one."""
        found = super().result
        assert isinstance(found, FasterRCNN)
        return found

    def _loss(self, batch: DetectionBatch) -> Tensor:
        """The sum of the detector's losses."""
        with self._reduced_precision():
            losses: dict[str, Tensor] = self._forward(*batch.inputs(self.world.device))
        loss = sum(losses.values())
        assert isinstance(loss, Tensor)
        return loss.float()

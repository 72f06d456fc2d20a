"""The parts of the loss, each a mean over the images of a batch, in nats where not said otherwise."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..recipes import Distillation


def distilled_loss(labels_loss: Tensor, logits: Tensor, teacher_logits: Tensor, distillation: Distillation) -> Tensor:
    """``labels_loss`` and the divergence from the teacher, weighted: paper, final training, 0.2 and 0.8."""
    divergence = teacher_divergence(logits, teacher_logits, distillation.temperature)
    return (1 - distillation.weight) * labels_loss + distillation.weight * divergence


def teacher_divergence(logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Kullback-Leibler divergence of the student's softmax from the teacher's, both of logits / ``temperature``.

    Times temperature squared, so that gradients keep their size (arXiv 1503.02531, section 2). Both of shape (images,
    classes).
    """
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def map_distance(maps: Tensor, teacher_maps: Tensor) -> Tensor:
    """Mean over all positions of 1 - cosine of the two maps' channel vectors, from 0 to 2.

    Both of shape (images, channels, height, width); where height and width differ the teacher's are averaged to fit.
    """
    fitting = F.adaptive_avg_pool2d(teacher_maps, (maps.shape[-2], maps.shape[-1]))
    return (1 - F.cosine_similarity(maps, fitting, dim=1)).mean()

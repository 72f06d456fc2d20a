"""The terms of the loss, each a mean over the images of a batch, in nats unless stated otherwise; and scores by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ..recipes import Distillation

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def labels_loss(logits: Tensor, targets: Tensor, smoothing: float, class_weights: Tensor | None) -> Tensor:
    """Cross entropy of ``targets``: classes, shape (images,), or probabilities, shape (images, classes).

    Each image counts with the weight of its class; were the smoothed share of other classes weighted, too, rare ones
    would be answered for everything. The mean is over images, so that a batch may be divided.
    """
    if class_weights is None:
        return F.cross_entropy(logits, targets, label_smoothing=smoothing)
    losses = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
    weights = class_weights[targets] if targets.ndim == 1 else targets.to(class_weights) @ class_weights
    return (losses * weights).mean()


def class_weights_of(counts: npt.NDArray[np.integer[Any]]) -> Tensor:
    """Weights inversely proportional to the numbers ``counts`` of images of each class; their mean over images is 1."""
    weights = counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return torch.from_numpy(weights.astype(np.float32))


def distilled_loss(labels_loss: Tensor, logits: Tensor, teacher_logits: Tensor, distillation: Distillation) -> Tensor:
    """Weighted sum of ``labels_loss`` and the divergence from the teacher (paper, final training: 0.2 and 0.8)."""
    divergence = teacher_divergence(logits, teacher_logits, distillation.temperature)
    return (1 - distillation.weight) * labels_loss + distillation.weight * divergence


def teacher_divergence(logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Kullback-Leibler divergence of the student's softmax from the teacher's, both of logits / ``temperature``.

    Multiplied by the squared temperature, so that gradients keep their scale (arXiv 1503.02531, section 2). Both have
    shape (images, classes).
    """
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def map_distance(maps: Tensor, teacher_maps: Tensor) -> Tensor:
    """Mean over all positions of 1 - cosine similarity of the maps' channel vectors, from 0 to 2.

    Both have shape (images, channels, height, width); if sizes differ, the teacher's maps are average-pooled to fit.
    """
    pooled = F.adaptive_avg_pool2d(teacher_maps, (maps.shape[-2], maps.shape[-1]))
    return (1 - F.cosine_similarity(maps, pooled, dim=1)).mean()


def row_scores(logits: Doubles, labels: Ints) -> tuple[Ints, Ints, Doubles, Doubles]:
    """Predicted class, rank of the true class, cross entropy, and probability of the predicted class, for each row."""
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    ranks = (~(logits < own)).sum(1) - 1  # ties and NaN count as errors
    others = np.maximum(logits, np.finfo(np.float64).min)  # even -inf ranks above the true class, which is excluded
    np.put_along_axis(others, labels[:, None], -np.inf, axis=1)
    predicted = np.where(ranks == 0, labels, others.argmax(1))
    peak = logits.max(1, keepdims=True)
    with np.errstate(invalid="ignore"):  # infinite logits make the loss nan
        powers = np.exp(logits - peak)
        losses = np.log(powers.sum(1)) + (peak - own)[:, 0]
        probabilities = np.take_along_axis(powers, predicted[:, None], axis=1)[:, 0] / powers.sum(1)
    return predicted, ranks, losses, probabilities

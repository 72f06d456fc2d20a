"""The losses against NumPy's and SciPy's reading of their formulas, and their gradients."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax
from scipy.stats import entropy
from torch import Tensor

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.recipes import SGD, Augmentation, Distillation, Recipe
from fbnetv3_zoo.training.learner import Learner
from fbnetv3_zoo.training.loader import Batch
from fbnetv3_zoo.training.losses import distilled_loss, map_distance, teacher_divergence
from fbnetv3_zoo.training.teacher import Teacher

Doubles = npt.NDArray[np.float64]


def _logits(seed: int, images: int = 6, classes: int = 5) -> Tensor:
    return 3 * torch.randn(images, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _divergence(student: Doubles, teacher: Doubles, temperature: float) -> float:
    """Entropy of the teacher relative to the student, image by image, as SciPy has it."""
    own, other = (np.exp(log_softmax(logits / temperature, axis=1)) for logits in (student, teacher))
    return float(np.mean(entropy(other, own, axis=1)) * temperature**2)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_divergence_from_the_teacher(temperature: float) -> None:
    student, teacher = _logits(0), _logits(1)
    expected = _divergence(student.numpy(), teacher.numpy(), temperature)
    assert teacher_divergence(student, teacher, temperature).item() == pytest.approx(expected, rel=1e-12)
    assert teacher_divergence(student, student, temperature).item() == pytest.approx(0, abs=1e-14)
    assert expected != pytest.approx(_divergence(teacher.numpy(), student.numpy(), temperature), rel=1e-3)


def test_divergence_of_sure_answers_is_a_number() -> None:
    sure = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    found = teacher_divergence(sure, sure.detach().flip(1))
    found.backward()  # type: ignore[no-untyped-call]
    assert found.item() == pytest.approx(1e4)
    assert sure.grad is not None
    assert sure.grad.isfinite().all()


@pytest.mark.parametrize("temperature", [1.0, 3.0, 1e4])
def test_gradients_keep_their_size(temperature: float) -> None:
    """T (softmax(z / T) - softmax(v / T)) / images; where T is large, the centered difference of logits / classes."""
    student, teacher = _logits(0).requires_grad_(), _logits(1)
    teacher_divergence(student, teacher, temperature).backward()  # type: ignore[no-untyped-call]
    own, other = (F.softmax(logits.detach() / temperature, dim=1) for logits in (student, teacher))
    assert student.grad is not None
    torch.testing.assert_close(student.grad, temperature * (own - other) / 6, rtol=1e-9, atol=1e-12)
    if temperature == 1e4:
        difference = (student - teacher).detach()
        limit = (difference - difference.mean(1, keepdim=True)) / 5 / 6
        torch.testing.assert_close(student.grad, limit, rtol=1e-2, atol=1e-3)


def test_gradients_by_finite_differences() -> None:
    student, teacher = _logits(0).requires_grad_(), _logits(1)
    assert torch.autograd.gradcheck(lambda logits: teacher_divergence(logits, teacher, 2.0), (student,))
    maps = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    theirs = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert torch.autograd.gradcheck(lambda own: map_distance(own, theirs), (maps.requires_grad_(),))


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.8, 1.0])
def test_weights_of_labels_and_teacher(weight: float) -> None:
    student, teacher, labels_loss = _logits(0), _logits(1), torch.tensor(1.7, dtype=torch.float64)
    expected = (1 - weight) * 1.7 + weight * _divergence(student.numpy(), teacher.numpy(), 2.0)
    found = distilled_loss(labels_loss, student, teacher, Distillation(weight, 2.0))
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_the_papers_weights_are_the_default() -> None:
    student, teacher = _logits(0), _logits(1)
    expected = 0.2 * 1.7 + 0.8 * _divergence(student.numpy(), teacher.numpy(), 1.0)
    found = distilled_loss(torch.tensor(1.7, dtype=torch.float64), student, teacher, Distillation())
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_map_distance_is_one_minus_the_cosine() -> None:
    generator = torch.Generator().manual_seed(0)
    own, theirs = (torch.randn(2, 5, 3, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    dots = np.einsum("nchw,nchw->nhw", own, theirs)
    lengths = (np.linalg.norm(maps.numpy(), axis=1) for maps in (own, theirs))
    expected = np.mean(1 - dots / np.prod(list(lengths), axis=0))
    assert map_distance(own, theirs).item() == pytest.approx(expected, rel=1e-12)
    assert map_distance(own, 7 * own).item() == pytest.approx(0, abs=1e-12)
    assert map_distance(own, -own).item() == pytest.approx(2, abs=1e-12)
    across = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    assert map_distance(across, across.flip(1)).item() == 1


def test_maps_of_other_sizes_are_averaged_to_fit() -> None:
    generator = torch.Generator().manual_seed(0)
    own, theirs = torch.randn(2, 5, 3, 3, generator=generator), torch.randn(2, 5, 6, 6, generator=generator)
    pooled = theirs.reshape(2, 5, 3, 2, 3, 2).mean((3, 5))
    torch.testing.assert_close(map_distance(own, theirs), map_distance(own, pooled))
    assert map_distance(own, torch.ones(2, 5, 1, 1)) == map_distance(own, torch.ones(2, 5, 3, 3))


# --- the whole loss, as a step computes it ---


def _cross_entropy(logits: Doubles, targets: Doubles, smoothing: float) -> float:
    """Of shares of classes (images, classes), smoothed towards equal shares."""
    smoothed = (1 - smoothing) * targets + smoothing / targets.shape[1]
    return float(-np.mean(np.sum(smoothed * log_softmax(logits, axis=1), axis=1)))


def _batch(images: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return Batch(pixels, torch.arange(images) % 10)


def _network(arch: Arch, seed: int) -> FBNet:
    """A network whose answers differ from image to image."""
    network = FBNet(arch, generator=torch.Generator().manual_seed(seed))
    torch.nn.init.normal_(network.classifier.weight, generator=torch.Generator().manual_seed(seed))
    return network


def _answers(network: FBNet, preprocess: Preprocess, pixels: Tensor) -> Doubles:
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    with torch.no_grad():
        found: Doubles = network((pixels - mean) / std).double().numpy()
    return found


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("distillation", [None, Distillation(0.8, 2.0)])
def test_the_loss_of_a_step(smoothing: float, distillation: Distillation | None, tiny_arch: Arch) -> None:
    """Two parts, each with norms of its own; their mean, with labels alone and with a teacher."""
    student, teacher_network = _network(tiny_arch, 0), _network(tiny_arch, 1).eval()
    recipe = Recipe(1, 6, SGD(), 0.1, label_smoothing=smoothing, distillation=distillation or Distillation())
    preprocess, batch = student.preprocess, _batch()
    teacher = Teacher(
        lambda images: (teacher_network(images), None), preprocess, name="t", digest="", class_names=None,
        map_channels=None,
    )  # fmt: skip
    learner = Learner(student, recipe, teacher=teacher if distillation else None)
    parts = [Batch(batch.images[:3], batch.labels[:3]), Batch(batch.images[3:], batch.labels[3:])]
    expected = []
    for part in parts:
        pixels = part.images.float() / 255
        logits = _answers(student.train(), preprocess, pixels)
        loss = _cross_entropy(logits, np.eye(10)[part.labels.numpy()], smoothing)
        if distillation:
            divergence = _divergence(logits, _answers(teacher_network, preprocess, pixels), 2.0)
            loss = 0.2 * loss + 0.8 * divergence
        expected.append(loss)
    assert float(learner.gradients(parts, seed=0)) == pytest.approx(np.mean(expected), rel=1e-5)
    assert abs(expected[0] - expected[1]) > 1e-3


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_mixed_labels(smoothing: float, tiny_arch: Arch) -> None:
    student, batch = _network(tiny_arch, 0), _batch()
    recipe = Recipe(1, 6, SGD(), 0.1, augmentation=Augmentation(mixup=1.0), label_smoothing=smoothing)
    learner = Learner(student, recipe)
    seen: list[tuple[Tensor, Tensor]] = []
    mix = learner._mix

    def remembered(pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        pixels, targets = mix(pixels, labels)
        seen.append((pixels.clone(), targets))  # the step goes on in place
        return pixels, targets

    learner._mix = remembered
    found = float(learner.gradients([batch], seed=3))
    ((pixels, targets),) = seen
    assert ((targets > 0.05) & (targets < 0.95)).any()
    expected = _cross_entropy(_answers(student, student.preprocess, pixels), targets.double().numpy(), smoothing)
    assert found == pytest.approx(expected, rel=1e-5)

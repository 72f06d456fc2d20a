"""What is saved can be loaded: networks that were wrapped, changed, halved; all else is refused before."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refusal
from safetensors.torch import save_file
from shell import run
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel
from torchvision.ops import FrozenBatchNorm2d

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.classify import Classifier
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.training.teacher import find_teacher
from fbnetv3_zoo.weights.cache import WeightsCache
from fbnetv3_zoo.weights.serialization import load, save


@pytest.fixture
def network(tiny_arch: Arch) -> FBNet:
    """A network whose answers depend on the image."""
    model = FBNet(tiny_arch, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        model(torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    model.class_names = tuple("abcdefghij")
    return model.eval()


def _images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def _compiled(model: FBNet) -> nn.Module:
    return torch.compile(model)


def _compiled_inside(model: FBNet) -> nn.Module:
    model.stages[1] = torch.compile(model.stages[1])  # type: ignore[assignment]
    return model


def _in_parallel(model: FBNet) -> nn.Module:
    return nn.DataParallel(torch.compile(model))


def _averaged(model: FBNet) -> nn.Module:
    average = AveragedModel(model, use_buffers=True)
    average.update_parameters(model)
    return average


def _pruned(model: FBNet) -> nn.Module:
    for part in [part for part in model.modules() if isinstance(part, nn.Conv2d)]:
        prune.l1_unstructured(part, "weight", 0.3)
    prune.random_unstructured(model.classifier, "weight", 0.2)
    prune.l1_unstructured(model.classifier, "weight", 0.2)
    return model


def _normed(model: FBNet) -> nn.Module:
    parametrizations.weight_norm(model.classifier)
    parametrizations.spectral_norm(model.stages[0][0].conv)
    return model


def _normed_as_of_old(model: FBNet) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both are called deprecated
        nn.utils.weight_norm(model.classifier)
        nn.utils.spectral_norm(model.stages[0][0].conv)
    return model


def _frozen(model: FBNet) -> nn.Module:
    for parent in list(model.modules()):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, nn.BatchNorm2d):
                fixed = FrozenBatchNorm2d(norm.num_features, eps=norm.eps)
                fixed.load_state_dict(norm.state_dict())
                setattr(parent, name, fixed)
    return model


def _synchronized(model: FBNet) -> nn.Module:
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def _tied(model: FBNet) -> nn.Module:
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    same = next((a, b) for a in norms for b in norms if a is not b and a.num_features == b.num_features)
    same[0].weight = same[1].weight
    return model


CHANGES = [
    _compiled, _compiled_inside, _in_parallel, _averaged, _pruned, _normed, _normed_as_of_old, _frozen, _synchronized,
    _tied,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@torch.inference_mode()
def test_changed_networks_come_back(network: FBNet, tmp_path: Path, change: Callable[[FBNet], nn.Module]) -> None:
    with torch.inference_mode(False):
        changed = change(network)
    before = {key: value.clone() for key, value in changed.state_dict().items()}
    training = [part.training for part in changed.modules()]
    save(changed, tmp_path / "a.safetensors")
    back = load(tmp_path / "a.safetensors")
    assert list(back.state_dict()) == list(FBNet(network.arch).state_dict())
    assert back.class_names == network.class_names
    plain = changed if change is not _compiled and change is not _in_parallel else network
    if change is not _compiled_inside:
        torch.testing.assert_close(back(_images()), plain(_images()), atol=1e-6, rtol=0)
    assert training == [part.training for part in changed.modules()]
    assert all(torch.equal(value, before[key]) for key, value in changed.state_dict().items())


def test_a_classifier_of_another_width_is_described(network: FBNet, tmp_path: Path) -> None:
    network.classifier = nn.Linear(network.classifier.in_features, 5)  # type: ignore[assignment]
    save(network, tmp_path / "a.safetensors")
    back = load(tmp_path / "a.safetensors")
    assert (back.arch.num_classes, back.class_names) == (5, None)
    assert torch.equal(back(_images()), network(_images()))
    assert network.arch.num_classes == 10


REFUSED: dict[str, tuple[Callable[[FBNet], object], str]] = {
    "no bias": (
        lambda m: setattr(m, "classifier", nn.Linear(m.classifier.in_features, 10, bias=False)),
        "does not fit tiny: 1 tensors missing, 0 left over (first missing: classifier.bias)",
    ),
    "two layers": (
        lambda m: setattr(m, "classifier", nn.Sequential(nn.Dropout(), m.classifier)),
        "does not fit tiny: 2 tensors missing, 2 left over (first missing: classifier.bias)",
    ),
    "activation": (
        lambda m: setattr(m.stages[0][0], "act", nn.SiLU()),
        "stages.0.0.act is SiLU, not Hardswish, which a file of weights does not keep",
    ),
    "epsilon": (
        lambda m: setattr(m.stages[0][0].norm, "eps", 0.5),
        "eps of stages.0.0.norm is 0.5, not 1e-05, which a file of weights does not keep",
    ),
    "stride": (
        lambda m: setattr(m.stages[0][0].conv, "stride", (1, 1)),
        "stride of stages.0.0.conv is (1, 1), not (2, 2), which a file of weights does not keep",
    ),
    "no activation": (
        lambda m: setattr(m.stages[0][0], "act", nn.Identity()),
        "stages.0.0.act is Identity, not Hardswish, which a file of weights does not keep",
    ),
    "stem": (
        lambda m: setattr(m.stages[0][0], "conv", nn.Conv2d(1, 8, 3)),
        "does not fit tiny: stages.0.0.conv.weight has shape (8, 1, 3, 3), not (8, 3, 3, 3)",
    ),
    "whole numbers": (
        lambda m: setattr(
            m.classifier, "weight", nn.Parameter(m.classifier.weight.to(torch.int8), requires_grad=False)
        ),
        "does not fit tiny: classifier.weight is torch.int8; it must be floating point",
    ),
    "eight bits": (
        lambda m: m.classifier.to(torch.float8_e4m3fn),
        "does not fit tiny: classifier.bias is torch.float8_e4m3fn; it must be floating point",
    ),
    "NaN": (
        lambda m: m.classifier.bias.data[3:5].fill_(float("nan")),
        "not written, as classifier.bias cannot be used: 2 of its 10 values are NaN or infinite; ",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_could_not_be_loaded_is_not_written(network: FBNet, tmp_path: Path, kind: str) -> None:
    path, (change, text) = tmp_path / "a.safetensors", REFUSED[kind]
    path.write_bytes(b"old")
    change(network)
    assert refusal(lambda: save(network, path)).startswith(f"{path}: {text}")
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
    assert path.read_bytes() == b"old"


def test_a_network_without_values_is_not_written(network: FBNet, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    told = f"{path}: the network has no values (it is on the meta device); load weights into it first"
    assert refusal(lambda: save(network.to("meta"), path)) == told
    assert list(tmp_path.iterdir()) == []


def test_other_modules_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    text = "model is Linear(in_features=1, out_features=1, bias=True); it must be a network, such as create("
    assert refusal(lambda: save(nn.DataParallel(nn.Linear(1, 1)), path)).startswith(text)


def test_a_network_is_saved_to_the_same_bytes(network: FBNet, tmp_path: Path) -> None:
    for number in range(8):
        save(network, tmp_path / f"{number}.safetensors")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_answer(network: FBNet, tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "a.safetensors"
    expected = network(_images())
    save(network.to(dtype), path)
    for back in (load(path), create(network.arch, pretrained=path).eval()):
        assert {tensor.dtype for tensor in back.state_dict().values()} == {torch.float32, torch.int64}
        torch.testing.assert_close(back(_images()), expected, atol=0.05, rtol=0.05)
    teacher = find_teacher(path, preprocess=network.preprocess, device=torch.device("cpu"))
    assert teacher(torch.rand(2, 3, 32, 32))[0].shape == (2, 10)
    picture = Image.new("RGB", (40, 40))
    for classifier in (Classifier.of(network), Classifier.open(path)):
        assert sum(found.probability for found in classifier([picture], top=10)[0]) == pytest.approx(1)


# Numbers that are none.


def _spoilt(network: FBNet, path: Path, value: float) -> Path:
    save(network, path)
    described = path.read_bytes()
    header = json.loads(described[8 : 8 + int.from_bytes(described[:8], "little")])
    network.classifier.bias.data[0] = value
    save_file(network.state_dict(), path, header["__metadata__"])
    return path


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(network: FBNet, tmp_path: Path, value: float) -> None:
    path = _spoilt(network, tmp_path / "a.safetensors", value)
    told = "classifier.bias is damaged: 1 of its 10 values are NaN or infinite; take a file from before that"
    torch.save(network.state_dict(), tmp_path / "a.pth")
    cache = WeightsCache(tmp_path / "kept")
    assert refusal(lambda: load(path)) == f"{path}: {told}"
    assert refusal(lambda: create(network.arch, pretrained=path)) == f"{path}: {told}"
    refused = refusal(lambda: create(network.arch, pretrained=tmp_path / "a.pth", cache=cache))
    assert refused == f"{tmp_path / 'a.pth'}: {told}"
    assert cache.kept() == []
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    ended = run("classify", "--model", path, tmp_path / "a.png", "--json")
    assert (ended.code, ended.out, ended.err) == (2, "", f"error: {path}: {told}\n")


def test_sums_that_overflow_are_no_damage(network: FBNet, tmp_path: Path) -> None:
    network.classifier.weight.data.fill_(3e38)
    save(network, tmp_path / "a.safetensors")
    assert load(tmp_path / "a.safetensors").classifier.weight.max() == torch.tensor(3e38)


def test_weights_too_large_for_float32_are_refused(network: FBNet, tmp_path: Path) -> None:
    network.double().classifier.weight.data.fill_(1e200)
    path = tmp_path / "a.safetensors"
    assert refusal(lambda: save(network, path)).startswith(
        f"{path}: not written, as classifier.weight cannot be used: "
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_answers_that_are_no_numbers_are_refused(network: FBNet, value: float) -> None:
    answers = np.zeros((2, 10), np.float32)
    answers[1, 4] = value
    classifier = Classifier(network.description, lambda _: answers)
    told = "tiny answers NaN or infinity for image 2 of 2; its weights are damaged, or too large for how it computes"
    pictures = [Image.new("RGB", (40, 40))] * 2
    assert refusal(lambda: classifier(pictures)) == f"{told}: take another file"
    answers[1] = np.linspace(-3e38, 3e38, 10)
    assert classifier(pictures)[1][0].probability == 1.0

"""Weight files: what comes back, what is refused, and what a crash or a full disk leaves behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refusal
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from strategies import archs
from torch import Tensor

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.preprocess import Interpolation, Preprocess
from fbnetv3_zoo.weights.serialization import load, save
from fbnetv3_zoo.weights.state_dict import adapt_stem

NAMES = ("zero", "één", "две", "三", "four", "five", "six", "seven", "eight", "nine")
PREPROCESS = Preprocess(40, 32, Interpolation.BICUBIC, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


@pytest.fixture
def model(tiny_arch: Arch) -> FBNet:
    """A network that has seen images and carries everything a file can hold."""
    network = FBNet(tiny_arch, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        network(torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    network.preprocess, network.class_names = PREPROCESS, NAMES
    return network.eval()


@pytest.fixture
def file(model: FBNet, tmp_path: Path) -> Path:
    """The file of ``model``."""
    save(model, tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def _images(channels: int = 3) -> Tensor:
    return torch.randn(4, channels, 32, 32, generator=torch.Generator().manual_seed(2))


def _entries(file: Path) -> dict[str, str]:
    with safe_open(file, framework="pt") as opened:
        return dict(opened.metadata())


def _rewrite(file: Path, tensors: dict[str, Tensor] | None = None, **entries: str | None) -> None:
    """The same file with other tensors or other text entries (None: without it)."""
    kept = {key: value for key, value in {**_entries(file), **entries}.items() if value is not None}
    save_file(load_file(file) if tensors is None else tensors, file, kept)


@torch.inference_mode()
def test_a_file_restores_everything(model: FBNet, file: Path) -> None:
    back = load(file)
    assert (back.arch, back.preprocess, back.class_names) == (model.arch, PREPROCESS, NAMES)
    assert not back.training
    assert not any(module.training for module in back.modules())
    assert list(back.state_dict()) == list(model.state_dict())
    assert torch.equal(back(_images()), model(_images()))
    assert all(parameter.requires_grad for parameter in back.parameters())


@torch.inference_mode()
def test_a_loaded_network_needs_its_file_no_more(model: FBNet, file: Path) -> None:
    back = load(file)
    expected, size = model(_images()), file.stat().st_size
    with file.open("rb+") as opened:
        opened.write(bytes(size))
    assert torch.equal(back(_images()), expected)
    with file.open("rb+") as opened:
        opened.truncate(0)  # reading a mapped page behind the end kills a process
    assert torch.equal(back(_images()), expected)


def test_training_a_loaded_network_leaves_the_file(file: Path) -> None:
    before, back = file.read_bytes(), load(file).train()
    back(_images()).sum().backward()
    torch.optim.SGD(back.parameters(), lr=0.1).step()
    assert file.read_bytes() == before


def test_a_file_without_class_names(model: FBNet, tmp_path: Path) -> None:
    model.class_names = None
    save(model, tmp_path / "net.safetensors")
    assert load(tmp_path / "net.safetensors").class_names is None


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(archs())
@torch.inference_mode()
def test_any_network_comes_back(tmp_path: Path, arch: Arch) -> None:
    model = FBNet(arch).eval()
    save(model, tmp_path / "any.safetensors")
    images = torch.randn(2, arch.in_channels, arch.resolution, arch.resolution)
    back = load(tmp_path / "any.safetensors")
    assert back.arch == arch
    assert torch.equal(back(images), model(images))
    assert torch.equal(create(arch, pretrained=tmp_path / "any.safetensors").eval()(images), model(images))


def test_a_loaded_network_trains_on(file: Path) -> None:
    model = load(file, drop_rate=0.5, drop_path_rate=0.5).train()
    assert model.dropout.p == 0.5
    model(_images()).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_saving_makes_the_folder_and_leaves_nothing_else(model: FBNet, tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "net.safetensors"
    for _ in range(2):
        save(model, path)
    assert [entry.name for entry in path.parent.iterdir()] == ["net.safetensors"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_saving_leaves_the_network_alone(model: FBNet, tmp_path: Path) -> None:
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    save(model, tmp_path / "net.safetensors")
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@torch.inference_mode()
def test_created_with_weights(model: FBNet, file: Path) -> None:
    created = create(model.arch, pretrained=file)
    assert (created.preprocess, created.class_names, created.training) == (PREPROCESS, NAMES, True)
    assert torch.equal(created.eval()(_images()), model(_images()))


@torch.inference_mode()
def test_created_with_other_classes(model: FBNet, file: Path) -> None:
    created = create(model.arch, num_classes=7, pretrained=file, generator=torch.Generator().manual_seed(5)).eval()
    fresh = create(model.arch)
    fresh.reset_classifier(7, generator=torch.Generator().manual_seed(5))
    assert (created.preprocess, created.class_names) == (PREPROCESS, None)
    assert torch.equal(created.forward_features(_images()), model.forward_features(_images()))
    assert torch.equal(created.classifier.weight, fresh.classifier.weight)


@torch.inference_mode()
def test_created_for_gray_images(model: FBNet, file: Path) -> None:
    gray = create(model.arch, in_chans=1, pretrained=file).eval()
    assert gray.preprocess == PREPROCESS.for_channels(1)
    assert gray.class_names == NAMES
    images = _images(1)
    stems = [network.stages[0][0].conv for network in (gray, model)]
    torch.testing.assert_close(stems[0](images), stems[1](images.repeat(1, 3, 1, 1)), atol=1e-5, rtol=0)
    torch.testing.assert_close(gray(images), model(images.repeat(1, 3, 1, 1)), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_created_for_four_channels(model: FBNet, file: Path) -> None:
    four = create(model.arch, in_chans=4, pretrained=file).eval()
    old, new = model.stages[0][0].conv.weight, four.stages[0][0].conv.weight
    torch.testing.assert_close(new, old[:, [0, 1, 2, 0]] * 3 / 4)
    assert four(_images(4)).shape == (4, 10)


@pytest.mark.parametrize(("old", "new"), [(3, 1), (3, 6), (1, 4), (2, 4), (4, 1)])
def test_equal_channels_give_the_same_sum(old: int, new: int) -> None:
    weight = torch.randn(8, old, 3, 3)
    torch.testing.assert_close(adapt_stem(weight, new).sum(1), weight.sum(1))


@pytest.mark.parametrize("change", ["with_symmetric_padding", "resolution", "name"])
def test_weights_fit_networks_that_differ_in_no_tensor(model: FBNet, file: Path, change: str) -> None:
    arch = model.arch.with_symmetric_padding() if change == "with_symmetric_padding" else model.arch
    arch = {"resolution": replace(arch, resolution=64), "name": replace(arch, name="other")}.get(change, arch)
    assert torch.equal(create(arch, pretrained=file).classifier.weight, model.classifier.weight)


def test_plain_state_dicts_fit_too(model: FBNet, tmp_path: Path) -> None:
    plain = tmp_path / "plain.safetensors"
    save_file(model.state_dict(), plain)
    created = create(model.arch, pretrained=plain).eval()
    assert torch.equal(created(_images()), model(_images()))
    assert (created.preprocess, created.class_names) == (Preprocess.for_arch(model.arch), None)
    text = f"{plain}: does not say which network it is for; use create(MODEL, pretrained=...)"
    assert refusal(lambda: load(plain)) == text


def test_another_networks_file_is_refused(model: FBNet, file: Path) -> None:
    stem, (first, last), head = model.arch.stages
    other = replace(model.arch, name="other", stages=(stem, (first, replace(last, kernel_size=3)), head))  # type: ignore[call-arg]
    text = f"{file}: holds tiny, not other; load() the file alone (--model FILE)"
    assert refusal(lambda: create(other, pretrained=file)) == text


def test_another_networks_plain_state_dict_is_refused(model: FBNet, tmp_path: Path) -> None:
    plain = tmp_path / "plain.safetensors"
    tensors = model.state_dict()
    tensors["stages.9.bias"] = tensors.pop("stages.0.0.conv.bias")
    save_file(tensors, plain)
    faults = "1 missing (stages.0.0.conv.bias); 1 left over (stages.9.bias)"
    text = f"state dict does not fit tiny in fbnetv3_zoo layout: {faults}"
    assert refusal(lambda: create(model.arch, pretrained=plain)) == f"{plain}: {text}"
    save_file({**model.state_dict(), "stages.0.0.conv.bias": torch.zeros(9)}, plain)
    wrong = "1 of the wrong kind (stages.0.0.conv.bias has shape (9,), not (8,))"
    text = f"state dict does not fit tiny in fbnetv3_zoo layout: {wrong}"
    assert refusal(lambda: create(model.arch, pretrained=plain)) == f"{plain}: {text}"


def test_wrong_places_are_refused(model: FBNet, tmp_path: Path) -> None:
    (tmp_path / "net.pth").touch()
    gone = tmp_path / "gone.safetensors"
    assert refusal(lambda: load(gone)) == f"{gone}: no such file"
    assert refusal(lambda: load(tmp_path)) == f"{tmp_path}: is a folder, not a weight file"
    wrong = tmp_path / "net.pth"
    assert refusal(lambda: load(wrong)) == f"{wrong}: weights are read from .safetensors files only"
    assert refusal(lambda: save(model, wrong)) == f"{wrong}: weights are saved as .safetensors; change the extension"
    (tmp_path / "folder.safetensors").mkdir()
    folder = tmp_path / "folder.safetensors"
    assert refusal(lambda: save(model, folder)) == f"{folder}: cannot be written (Is a directory)"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder.safetensors", "net.pth"]


@pytest.mark.parametrize("size", [0, 7, 100, 5000, -1])
def test_truncated_files_are_refused(file: Path, size: int) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:size])
    assert refusal(lambda: load(file)).startswith(f"{file}: cannot be read as safetensors (")


def test_other_files_are_refused(file: Path) -> None:
    torch.save({}, file)
    assert refusal(lambda: load(file)).startswith(f"{file}: cannot be read as safetensors (")


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"arch": None}, "damaged description (it lacks 'arch')"),
        ({"preprocess": None}, "damaged description (it lacks 'preprocess')"),
        ({"class_names": None}, "damaged description (it lacks 'class_names')"),
        ({"arch": "["}, "damaged description (arch JSON cannot be read: Expecting value: line 1 column 2 (char 1))"),
        ({"preprocess": '{"resize": 32}'}, "damaged description (preprocess lacks 'resolution')"),
        ({"class_names": '["a", 2]'}, "damaged description (class_names is not a list of names)"),
        ({"trained_on": "[1]"}, "damaged description (trained_on is not a list of names)"),
        ({"class_names": '["a"]'}, "damaged description (class_names has 1 names; tiny has 10 classes)"),
        ({"format_version": "2"}, "has format version '2'; this release reads '1', upgrade fbnetv3-zoo"),
        ({"format": "other"}, "does not say which network it is for; use create(MODEL, pretrained=...)"),
    ],
)  # fmt: skip
def test_damaged_descriptions_are_refused(file: Path, entries: dict[str, str | None], text: str) -> None:
    _rewrite(file, **entries)
    assert refusal(lambda: load(file)) == f"{file}: {text}"


def test_a_description_of_another_width_is_refused(model: FBNet, file: Path) -> None:
    data = json.loads(_entries(file)["arch"]) | {"num_classes": 11}
    _rewrite(file, arch=json.dumps(data), class_names="null")
    assert refusal(lambda: load(file)).startswith(f"{file}: does not fit tiny: classifier.")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_flipped_bit_in_the_header_is_refused_or_harmless(file: Path, data: st.DataObject) -> None:
    content = bytearray(file.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    position = data.draw(st.integers(0, header - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    flipped = file.with_name("flipped.safetensors")
    flipped.write_bytes(content)
    message, state = _loaded(flipped)
    assert message.startswith(f"{flipped}: ") != bool(state)
    assert not any(value.is_meta for value in state.values())


def _loaded(file: Path) -> tuple[str, dict[str, Tensor]]:
    """The refusal of ``file``, or what is in it."""
    try:
        return "", load(file).state_dict()
    except ZooError as error:
        return str(error), {}


def test_class_names_of_another_number_are_refused_when_saving(model: FBNet, tmp_path: Path) -> None:
    model.class_names = ("cat", "dog")
    text = "class_names has 2 names; tiny has 10 classes"
    assert refusal(lambda: save(model, tmp_path / "net.safetensors")) == text
    assert not list(tmp_path.iterdir())

"""torchvision's models: named, scaled (Table 1), trained, saved, resumed, distilled, exported, classified."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from refusals import refusal
from runs import PLAIN, Stopped, Stopper, assert_same, train
from safetensors.torch import save_file
from shell import run
from torch import nn
from torchvision import models

from fbnetv3_zoo import create, load, save
from fbnetv3_zoo.arch.torchvision_arch import TorchvisionArch
from fbnetv3_zoo.classify import Classifier
from fbnetv3_zoo.detection import faster_rcnn_c4
from fbnetv3_zoo.export import export_onnx
from fbnetv3_zoo.models.size import size_of
from fbnetv3_zoo.models.torchvision_model import TorchvisionModel, find_torchvision
from fbnetv3_zoo.recipes import Distillation
from fbnetv3_zoo.training import Dataset, Execution, Run
from fbnetv3_zoo.zoo import find_arch

SMALL = TorchvisionArch("resnet18", width=0.125, resolution=32)


def parameters_of_resnet(layers: tuple[int, ...], widths: tuple[int, ...], classes: int = 1000) -> int:
    """By hand, for basic blocks: 3x3 convolutions and norms, 1x1 shortcuts where a stage begins, stem, classifier."""
    total, before = 3 * 49 * widths[0] + 2 * widths[0], widths[0]
    for stage, (blocks, width) in enumerate(zip(layers, widths, strict=True)):
        total += 9 * before * width + 9 * width * width * (2 * blocks - 1) + 2 * width * 2 * blocks
        total += (before * width + 2 * width) if stage else 0
        before = width
    return total + before * classes + classes


@pytest.mark.parametrize(
    ("name", "layers", "widths", "parameters"),
    [
        ("resnet18", (2, 2, 2, 2), (64, 128, 256, 512), 11_689_512),  # as torchvision publishes it
        ("resnet18@width=1.4", (2, 2, 2, 2), (88, 176, 360, 720), 22_738_992),
        ("resnet18@depth=2", (4, 4, 4, 4), (64, 128, 256, 512), 24_230_952),
        ("resnet34@width=0.5,depth=0.5", (2, 2, 3, 2), (32, 64, 128, 256), 3_351_304),
    ],
)
def test_resnets_are_scaled_as_in_table_1(
    name: str, layers: tuple[int, ...], widths: tuple[int, ...], parameters: int
) -> None:
    arch = find_torchvision(f"torchvision:{name}")
    assert arch.name == f"torchvision:{name}"
    assert size_of(arch).parameters == parameters == parameters_of_resnet(layers, widths)
    assert find_torchvision(arch.name) == arch == TorchvisionArch.from_json(arch.to_json())


def test_the_variants_of_table_1_cost_about_the_same() -> None:
    plain, wide, deep = (size_of(find_torchvision(f"torchvision:resnet18{x}")) for x in ("", "@width=1.4", "@depth=2"))
    assert 1.80e9 < plain.macs < 1.82e9  # He et al. count 1.8 billion
    assert 1.85 < wide.macs / plain.macs < deep.macs / plain.macs < 2.05


@pytest.mark.parametrize(
    ("scaled", "same"),
    [("mnasnet0_5@width=2", "mnasnet1_0"), ("mobilenet_v2@width=1", "mobilenet_v2"), ("resnet34", "resnet34")],
)
def test_other_families_are_scaled_by_their_own_factor(scaled: str, same: str) -> None:
    arch = find_torchvision(f"torchvision:{scaled}")
    own = models.get_model(same, weights=None)
    assert size_of(arch).parameters == sum(parameter.numel() for parameter in own.parameters())


def test_a_bottleneck_keeps_its_groups() -> None:
    model = create("torchvision:resnext50_32x4d@width=0.25,depth=0.5", num_classes=3)
    inner = model.inner
    assert isinstance(inner, models.ResNet)
    assert [len(stage) for stage in (inner.layer1, inner.layer2, inner.layer3, inner.layer4)] == [2, 2, 3, 2]
    assert {one.groups for one in inner.modules() if isinstance(one, nn.Conv2d)} == {1, 32}
    assert model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_initial_values_are_torchvisions_and_come_from_the_generator() -> None:
    one, other = (create(SMALL, generator=torch.Generator().manual_seed(5)).state_dict() for _ in range(2))
    assert all(torch.equal(one[key], other[key]) for key in one)
    convolution = create("torchvision:resnet18@width=2").inner.layer4[1].conv2.weight.detach()
    assert float(convolution.std()) == pytest.approx((2 / (9 * 1024)) ** 0.5, rel=0.02)  # Kaiming, fan out


def test_dropout_and_stochastic_depth_are_the_recipes() -> None:
    model = create(TorchvisionArch("efficientnet_b0", num_classes=4), drop_rate=0.25, drop_path_rate=0.3)
    depths = [one.p for one in model.modules() if type(one).__name__ == "StochasticDepth"]
    assert (depths[0], depths[-1]) == (0, 0.3)
    assert depths == sorted(depths)
    assert [one.p for one in model.modules() if isinstance(one, nn.Dropout)] == [0.25]
    model.reset_classifier(7)
    assert [one.p for one in model.modules() if isinstance(one, nn.Dropout)] == [0.25]


def test_gray_images_fill_all_channels() -> None:
    model = create(replace(SMALL, in_channels=1)).eval()
    gray = torch.rand(2, 1, 32, 32)
    assert torch.equal(model(gray), model(gray.repeat(1, 3, 1, 1)))
    assert model.preprocess.for_channels(1) == model.preprocess
    shape = refusal(lambda: model(torch.zeros(1, 4, 32, 32)))
    assert shape.endswith(": images have shape (1, 4, 32, 32); it takes (batch, 1 or 3, height, width)")


@pytest.mark.parametrize("name", ["resnet18@width=0.25", "regnet_y_400mf", "shufflenet_v2_x0_5", "squeezenet1_1"])
def test_a_file_restores_it(name: str, tmp_path: Path) -> None:
    model = create(replace(find_torchvision(f"torchvision:{name}"), resolution=64, num_classes=3)).eval()
    model.class_names, model.trained_on = ("a", "b", "c"), ("0123",)
    save(model, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert isinstance(again, TorchvisionModel)
    assert again.description == model.description
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(model(images), again(images))
    assert not again.training


def test_other_classes_get_a_new_classifier(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = create(SMALL, num_classes=5)
    save(model, tmp_path / "model.safetensors")
    other = create(SMALL, pretrained=tmp_path / "model.safetensors", num_classes=3, in_chans=1)
    assert (other.num_classes, other.arch.in_channels, len(other.preprocess.mean)) == (3, 1, 1)
    assert "new classifier for 3 classes, not 5; all else is loaded" in caplog.text
    assert torch.equal(other.inner.layer1[0].conv1.weight, model.inner.layer1[0].conv1.weight)
    assert other.eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 3)


def test_torchvisions_own_state_dict_is_taken(tmp_path: Path) -> None:
    theirs = models.squeezenet1_1(weights=None)
    torch.save(theirs.state_dict(), tmp_path / "squeezenet.pth")
    save_file(theirs.state_dict(), tmp_path / "squeezenet.safetensors")
    images = torch.rand(1, 3, 64, 64)
    for file in ("squeezenet.pth", "squeezenet.safetensors"):
        ours = create("torchvision:squeezenet1_1", pretrained=tmp_path / file)
        assert torch.equal(ours.eval()(images), theirs.eval()(images))
    wrong = refusal(lambda: create(SMALL, pretrained=tmp_path / "squeezenet.pth"))
    assert "does not fit torchvision:resnet18@width=0.125: " in wrong


@pytest.fixture(scope="module")
def trained(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two epochs on few digits. Only read."""
    return train(SMALL, data, PLAIN, tmp_path_factory.mktemp("trained"))


def test_a_run_is_resumed_to_the_last_bit(trained: Run, data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(SMALL, data, PLAIN, tmp_path, execution=Execution(checkpoint_steps=1), callbacks=[Stopper(2, 2)])
    again = train(SMALL, data, PLAIN, tmp_path, resume=True)
    assert_same(again.folder, trained.folder)
    wider = refusal(lambda: train(replace(SMALL, width=0.25), data, PLAIN, tmp_path, resume=True))
    assert "the run was begun with another network (width: 0.125 then, 0.25 now)" in wider


def test_it_learns_and_it_teaches(trained: Run, tiny_arch: object, data: Dataset, tmp_path: Path) -> None:
    recipe = replace(PLAIN, epochs=1, distillation=Distillation(weight=0.5))
    file = trained.folder / "model.safetensors"
    student = train(replace(SMALL, width=0.25), data, recipe, tmp_path / "student", teacher=file)
    assert student.model.arch.name == "torchvision:resnet18@width=0.25"
    ours = train(tiny_arch, data, recipe, tmp_path / "ours", teacher=file)  # type: ignore[arg-type]
    maps = replace(recipe, distillation=Distillation(weight=0.5, feature_weight=0.1))
    no_maps = refusal(lambda: train(tiny_arch, data, maps, tmp_path / "maps", teacher=file))  # type: ignore[arg-type]
    assert no_maps == f"teacher {file}: has no maps to compare; set distillation.feature_weight to 0"
    other = refusal(lambda: train(SMALL, data, maps, tmp_path / "maps", teacher=ours.model))
    assert other.startswith("torchvision:resnet18@width=0.125: torchvision's models give logits only, no feature maps")


def test_it_is_exported_and_classifies(trained: Run, data: Dataset, tmp_path: Path) -> None:
    network = load(trained.folder / "model.safetensors")
    report = export_onnx(network, tmp_path / "model.onnx")
    assert report.max_difference <= 1e-4 * report.scale
    image = Image.new("L", (8, 8), 128)
    files = (trained.folder / "model.safetensors", tmp_path / "model.onnx")
    one, other = (Classifier.open(file) for file in files)
    assert one.description == other.description
    assert one.description.class_names == data.class_names
    (mine,), (theirs,) = one([image]), other([image])
    assert [p.name for p in mine] == [p.name for p in theirs]
    assert [p.probability for p in mine] == pytest.approx([p.probability for p in theirs], abs=1e-4)


def test_from_the_command_line(tmp_path: Path) -> None:
    part = tmp_path / "part.json"
    assert run("subset", "digits", "--classes", 2, "--held-out", 20, "--output", part).code == 0
    output = tmp_path / "run"
    options = ("--resolution", 32, "--epochs", 1, "--batch-size", 32, "--subset", part, "--output", output)
    ended = run("train", "--model", "torchvision:resnet18@width=0.125", *options)
    assert ended.code == 0, ended.err
    assert "network  torchvision:resnet18@width=0.125, 32 x 32 pixels, 0.18 M parameters" in ended.err
    assert json.loads((output / "results.json").read_text())["network"] == "torchvision:resnet18@width=0.125"
    Image.new("L", (8, 8), 128).save(tmp_path / "image.png")
    assert run("export", "onnx", output / "model.safetensors").code == 0
    for file in ("model.safetensors", "model.onnx"):
        assert run("classify", tmp_path / "image.png", "--model", output / file).code == 0
        assert run("validate", output / file, "--subset", part).code == 0
    sizes = json.loads(run("info", "torchvision:resnet18@width=1.4", "--json").out)
    assert sizes["parameters"] == 22_738_992
    assert "22,738,992 parameters" in run("info", "torchvision:resnet18@width=1.4").out


REFUSED = {
    "--model torchvision:resnet5O": "torchvision has no model 'resnet5O' (did you mean 'resnet50'?)",
    "--model torchvision:vgg11@width=2": "torchvision:vgg11@width=2: vgg11 takes no factor width; these families do: "
    "ResNet, ResNeXt, MobileNetV2, MobileNetV3, MNASNet",
    "--model torchvision:mnasnet0_5@depth=2": "torchvision:mnasnet0_5@depth=2: mnasnet0_5 takes no factor depth; these "
    "families do: ResNet, ResNeXt",
    "--model torchvision:resnet18@widht=2": "torchvision:resnet18@widht=2: has no factor 'widht' (did you mean "
    "'width'?); write torchvision:NAME or torchvision:NAME@width=1.4,depth=2",
    "--model torchvision:resnet18@width=wide": "torchvision:resnet18@width=wide: width is 'wide', not a number; write "
    "torchvision:NAME or torchvision:NAME@width=1.4,depth=2",
    "--model torchvision:": "'torchvision:' names no model of torchvision; write torchvision:NAME or "
    "torchvision:NAME@width=1.4,depth=2",
    "--model torchvision:resnet18@width=0": "torchvision:resnet18: width is 0.0; it must be a number above 0 and at "
    "most 16",
    "--model torchvision:resnet18 --width 2": "torchvision:resnet18: --small-images, --width and --depth are for this "
    "project's networks; name torchvision:resnet18@width=1.4,depth=2 instead, where its family knows the factors",
    "--model torchvision:resnet18 --pretrained": "--pretrained: torchvision:resnet18's weights are not fetched "
    "here; give a file as --weights",
    "--model torchvision:resnet18 --resolution 32 --gradient-checkpointing": "torchvision:resnet18: torchvision's "
    "models know no gradient checkpointing; leave it out",
    "--model torchvision:resnet18 --resolution 32 --weight-levels 127": "torchvision:resnet18: only this project's "
    "networks are trained for int8; leave weight_levels 0",
    "--model torchvision:alexnet --resolution 32": "torchvision:alexnet: cannot compute images of 32 x 32 (Given input "
    "size: (256x1x1). Calculated output size: (256x0x0). Output size is too small); give another --resolution",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_training_refuses(arguments: str, tmp_path: Path) -> None:
    ended = run("train", *arguments.split(" "), "--epochs", 3, "--output", tmp_path / "run")
    assert ended.code == 2
    assert ended.err.splitlines()[-1] == f"error: {REFUSED[arguments]}"
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_what_else_is_refused(trained: Run, tmp_path: Path) -> None:
    name, file = "torchvision:resnet18", trained.folder / "model.safetensors"
    ours = f"{name}: is a model of torchvision; this is for networks of this project (`fbnetv3 list`)"
    assert refusal(lambda: find_arch(name)) == ours
    assert refusal(lambda: faster_rcnn_c4(name, num_classes=2)).startswith(name)
    assert refusal(lambda: create(name, features_only=True)).startswith(f"{name}: torchvision's models give logits")
    published = refusal(lambda: create(name, pretrained=True))
    assert published == f"{name}: its published weights are not fetched here; give a file of them as the weights"
    address = refusal(lambda: create(name, pretrained="https://example.org/resnet18.pth"))
    assert address.endswith("weights of torchvision's models are not fetched here; give a file of them")
    assert refusal(lambda: create("fbnetv3_a", pretrained=file)).startswith(f"{file}: holds torchvision:resnet18")
    assert refusal(lambda: load(file).freeze(1)).endswith("have no stages to freeze; set frozen_stages to 0")
    assert refusal(lambda: TorchvisionArch("resnet18", in_channels=2)).endswith("it takes color (3) or gray (1)")
    classify = run("classify", "x.png", "--model", name).err
    assert classify == f"error: {name}: is a name, not a file; train it, and give its model.safetensors\n"
    family = run("distil", "--models", name, "--output", tmp_path / "run").err
    assert (
        family == f"error: {name}: is a model of torchvision; this is for networks of this project (`fbnetv3 list`)\n"
    )
    family = run("distil", "--models", file, "--output", tmp_path / "run").err
    assert family.startswith(f"error: {file}: is torchvision:resnet18@width=0.125, a model of torchvision; this is for")

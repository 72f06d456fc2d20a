"""Everything a user can plausibly get wrong, with the one line that says what, where, and how to mend it."""

from __future__ import annotations

import contextlib
import io
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from refusals import refusal
from safetensors.torch import save_file

from fbnetv3_zoo.arch import Activation, Arch, Conv, InvertedResidual, PoolingHead, Row, Skip, SqueezeExcite
from fbnetv3_zoo.arch.cost import arch_cost
from fbnetv3_zoo.classify import Classifier
from fbnetv3_zoo.cli import main
from fbnetv3_zoo.description import Description
from fbnetv3_zoo.export import (
    export_all,
    export_executorch,
    export_litert,
    export_mobile,
    export_onnx,
    export_openvino,
    push_to_hub,
    quantize,
    save_pretrained,
    write_web,
)
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.preprocess import Preprocess, read_image
from fbnetv3_zoo.recipes import (
    RECIPES,
    Augmentation,
    RandAugment,
    Recipe,
    find_recipe,
    fit_recipe,
)
from fbnetv3_zoo.search import parse_constraint, run_search
from fbnetv3_zoo.training import Callback, Dataset, evaluate, find_dataset, train
from fbnetv3_zoo.training.data import Subset
from fbnetv3_zoo.training.distill import Member, distil
from fbnetv3_zoo.weights.registry import list_models, list_weights
from fbnetv3_zoo.weights.serialization import load, save
from fbnetv3_zoo.zoo import ARCHS, cost_of

RELU = Activation.RELU
STEM = Conv(3, 8, 2, RELU)
WHOLE = "it must be a whole number of at least 1"
BELOW_1 = "it must be a number at least 0 and below 1"
FROM_0_TO_1 = "it must be a number at least 0 and at most 1"
KNOWN = f"known are {', '.join(f'fbnetv3_{letter}' for letter in 'abcdefg')}, proxy, cifar10, digits"
DIGITS = RECIPES["digits"]
A_NETWORK = (
    "it must be a network, such as create('fbnetv3_nano', pretrained=True), create('torchvision:resnet18') "
    "or load(FILE)"
)
A_WEIGHT_FILE = "it must be the path of a weight file, or 'hf-hub:owner/name'"
AN_IMAGE_FILE = "it must be the path of an image file; an open one: decode_image(file, NAME)"
RESNET = torchvision.models.resnet18()
AN_ARCH = "it must be an Arch or a name, such as 'fbnetv3_nano'"
A_RECIPE = "it must be a recipe, such as RECIPES['digits'] or fit_recipe(IMAGES)"
CALLBACKS = "instances of fbnetv3_zoo.training.Callback"


def block(**changes: Any) -> InvertedResidual:
    return replace(InvertedResidual(3, 8, 1, 1, 2, RELU), **changes)


def arch(*rows: Row, **changes: Any) -> Arch:
    """A network of one stage."""
    return Arch(**{"name": "net", "resolution": 32, "stages": (rows or (STEM,),), "num_classes": 10, **changes})


def from_json(old: str, new: str) -> Arch:
    """The network ``arch(STEM, block())``, read from its JSON text with a change."""
    text = arch(STEM, block()).to_json()
    assert old in text
    return Arch.from_json(text.replace(old, new, 1))


def recipe_from_json(old: str, new: str) -> Recipe:
    """A recipe read from its JSON text with a change."""
    text = replace(DIGITS, augmentation=Augmentation(policy=RandAugment(3))).to_json()
    assert old in text
    return Recipe.from_json(text.replace(old, new, 1))


def digits(seed: int = 0) -> Dataset:
    return find_dataset("digits", seed=seed)


def small(channels: int = 3, side: int = 32, **options: Any) -> torch.Tensor:
    return FBNet(arch(), **options)(torch.zeros(1, channels, side, side))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of right and wrong files. Only read."""
    path = tmp_path_factory.mktemp("here")
    model = create(arch())
    model.class_names = tuple("abcdefghij")
    save(model, path / "letters.safetensors")
    save(create(arch(num_classes=3)), path / "three.safetensors")
    save_file({"weight": torch.zeros(1)}, path / "foreign.safetensors")
    save_file({"weight": torch.zeros(1)}, path / "newer.safetensors", {"format": "fbnetv3_zoo", "format_version": "2"})
    (path / "net.json").write_text(arch().to_json())
    for name in ("garbage.safetensors", "garbage.json", "garbage.png", "garbage.onnx", "notes.txt"):
        (path / name).write_text("no such thing")
    for name in ("empty.safetensors", "empty.json", "empty.onnx"):
        (path / name).touch()
    (path / "unset.json").write_text('{"data": ""}')
    Image.new("RGB", (8, 8)).save(path / "image.png")
    (path / "folder").mkdir()
    (path / "folder.json").mkdir()
    (path / "used" / "checkpoints").mkdir(parents=True)
    (path / "used" / "checkpoints" / f"epoch-0001-step-000000-{'0' * 16}.safetensors").write_text("of a run")
    (path / "photos.json").write_text(RECIPES["digits"].to_json())
    (path / "subset.json").write_text(Subset("others", 0, ("0", "x"), ("1.png",)).to_json())
    (path / "one_class" / "cat").mkdir(parents=True)
    (path / "run").mkdir()
    for name in ("model.safetensors", "recipe.json"):
        (path / "run" / name).touch()
    return path


# Wrong values of recipes and executions: test_recipe.py, test_execution.py
CALLS: list[tuple[Callable[[Path], object], str]] = [
    # Rows
    (lambda _: Conv(3, -8, 1, RELU), f"Conv.out_channels is -8; {WHOLE}"),
    (lambda _: block(out_channels=0), f"InvertedResidual.out_channels is 0; {WHOLE}"),
    (lambda _: Conv(3, 8.0, 1, RELU), f"Conv.out_channels is 8.0; {WHOLE}"),
    (lambda _: Skip("8"), f"Skip.out_channels is '8'; {WHOLE}"),
    (lambda _: Skip(True), f"Skip.out_channels is True; {WHOLE}"),
    (lambda _: PoolingHead(10**7, 1, RELU),
     "PoolingHead.out_channels is 10000000; it must be a whole number of at most 1000000"),
    (lambda _: block(repeats=0), f"InvertedResidual.repeats is 0; {WHOLE}"),
    (lambda _: Conv(4, 8, 1, RELU), "Conv.kernel_size is 4; it must be odd (1, 3, 5, 7, ...)"),
    (lambda _: block(stride=3), "InvertedResidual.stride is 3; it must be 1 or 2"),
    (lambda _: Skip(8, True), "Skip.stride is True; it must be 1 or 2"),
    (lambda _: Conv(3, 8, 1, "relu"), "Conv.activation is 'relu'; it must be an Activation"),
    (lambda _: Conv(3, 8, 1, RELU, 1), "Conv.bias is 1; it must be True or False"),
    (lambda _: block(expansion=0), "InvertedResidual.expansion is 0; it must be a number at least 0.001"),
    (lambda _: block(expansion=math.nan), "InvertedResidual.expansion is nan; it must be a number at least 0.001"),
    (lambda _: block(depthwise_padding=2),
     "InvertedResidual.depthwise_padding is 2; it must be at most kernel_size // 2 = 1"),
    (lambda _: block(groups_1x1=0), f"InvertedResidual.groups_1x1 is 0; {WHOLE}"),
    (lambda _: block(channels_per_group=0), f"InvertedResidual.channels_per_group is 0; {WHOLE}"),
    (lambda _: block(squeeze_excite=0.25),
     "InvertedResidual.squeeze_excite is 0.25; it must be a SqueezeExcite or None"),
    (lambda _: SqueezeExcite("output"), "SqueezeExcite.reduces is 'output'; choose from input, expanded"),
    (lambda _: SqueezeExcite("input", 0.0), "SqueezeExcite.ratio is 0.0; it must be a number above 0"),
    # Networks
    (lambda _: arch(name="my net"),
     "Arch.name is 'my net'; use letters, digits, '.', '_' and '-', as in a file name, 200 at most"),
    (lambda _: arch(num_classes=0), f"net: num_classes is 0; {WHOLE}"),
    (lambda _: arch(in_channels="3"), f"net: in_channels is '3'; {WHOLE}"),
    (lambda _: arch(stages=()), "net: stages is empty; give at least one stage"),
    (lambda _: arch(stages=[]), "net: stages is []; give a tuple of stages, each a tuple of rows"),
    (lambda _: arch(stages=((),)), "net: stages[0] is empty; give at least one row"),
    (lambda _: arch(stages=((Skip(8),), [Skip(8)])),
     "net: stages[1] is [Skip(out_channels=8, stride=1, repeats=1)]; give a tuple of rows"),
    (lambda _: arch(stages=((STEM, 16),)),
     "net: stages[0][1] is 16; it must be a Conv, InvertedResidual, Skip or PoolingHead"),
    (lambda _: arch(PoolingHead(8, 1, RELU), Skip(8)),
     "net: stages[0][0] is a PoolingHead; it may only be the last row"),
    (lambda _: arch(STEM, block(groups_1x1=3)),
     "net: stage 0, block 1: in_channels 8 is not divisible by groups_1x1 = 3; change one of them"),
    (lambda _: arch(STEM, block(channels_per_group=3)),
     "net: stage 0, block 1: expanded width 16 is not divisible by its 5 groups; "
     "change channels_per_group (3) or expansion (2)"),
    (lambda _: replace(ARCHS["fbnetv3_a"], resolution=48),
     "fbnetv3_a: resolution is 48; its strides and padding need at least 49"),
    (lambda _: arch().scaled(width=0), "scaled: width is 0; it must be a number above 0"),
    (lambda _: arch().scaled(depth=math.nan), "scaled: depth is nan; it must be a number above 0"),
    (lambda _: arch().for_small_images(), "net: for_small_images needs two rows of stride 2; this network has 1"),
    (lambda _: arch_cost(ARCHS["fbnetv3_a"], resolution=32),
     "fbnetv3_a: resolution is 32; its strides and padding need at least 49"),
    # Networks in files
    (lambda _: Arch.from_json("net"), "arch JSON cannot be read: Expecting value: line 1 column 1 (char 0)"),
    (lambda _: Arch.from_json(RECIPES["digits"].to_json()),
     'arch JSON lacks "format": "fbnetv3_zoo.arch"; write such files with to_json()'),
    (lambda _: from_json('"version": 1', '"version": 2'), "arch JSON has version 2; this release reads version 1"),
    (lambda _: from_json('"resolution"', '"resolutions"'),
     "arch has an unknown key 'resolutions' (did you mean 'resolution'?)"),
    (lambda _: from_json('"name": "net",', ""), "arch lacks 'name'"),
    (lambda _: from_json('"op": "conv"', '"op": "convolution"'),
     "arch.stages[0][0].op is 'convolution'; choose from conv, inverted_residual, skip, pooling_head"),
    (lambda _: from_json('"activation": "relu"', '"activation": "swish"'),
     "arch.stages[0][0].activation is 'swish'; choose from relu, hard_swish"),
    (lambda _: from_json('"expansion": 2', '"expansion": -2'),
     "arch.stages[0][1]: InvertedResidual.expansion is -2; it must be a number at least 0.001"),
    (lambda _: Arch.from_json(
        '{"format": "fbnetv3_zoo.arch", "version": 1, "name": "net", "resolution": 32, "stages": 3}'
    ),
     "arch.stages is 3; it must be a list"),
    # Models
    (lambda _: create("fbnetv3_h"), "unknown model 'fbnetv3_h' (did you mean 'fbnetv3_g'?); `fbnetv3 list` shows all"),
    (lambda _: create("resnet50"),
     "unknown model 'resnet50' (did you mean 'torchvision:resnet50'?); `fbnetv3 list` shows all of ours"),
    (lambda _: create("fbnetv3_c", pretrained="commercial"),
     "fbnetv3_c: no published weights of it may be used commercially; those of fbnetv3_b, fbnetv3_d, fbnetv3_g, "
     "fbnetv3_nano may"),
    (lambda _: create(3), "a model is named by text, a path or an Arch; this is 3"),
    (lambda _: cost_of(create(arch())),
     "a model is named by text, a path or an Arch; this is of type FBNet; that of a network is network.arch"),
    (lambda _: create(arch(), features_only=True, out_indices=2),
     "out_indices is 2; it must be a list, such as [2, 3, 4]"),
    (lambda _: list_models(3), "pattern is 3; it must be text, such as 'fbnetv3*'"),
    (lambda _: list_weights(None), "pattern is None; it must be text, such as 'fbnetv3*'"),
    (lambda here: create(here / "absent.json"), "{here}/absent.json: no such file"),
    (lambda here: create(here / "garbage.json"),
     "{here}/garbage.json: arch JSON cannot be read: Expecting value: line 1 column 1 (char 0); correct the file, or "
     "write it again"),
    (lambda _: create("fbnetv3_a", num_classes=0), f"fbnetv3_a: num_classes is 0; {WHOLE}"),
    (lambda _: create(arch(), drop_rate=1.0), "drop_rate is 1.0; it must be a number at least 0 and below 1"),
    (lambda _: create(arch(), drop_path_rate=-0.1),
     "drop_path_rate is -0.1; it must be a number at least 0 and below 1"),
    (lambda here: create(arch(), pretrained=here / "absent.safetensors"), "{here}/absent.safetensors: no such file"),
    (lambda here: create(arch(), pretrained=here / "notes.txt"),
     "{here}/notes.txt: weights are read from .safetensors, .pth, .pt, .bin and .ckpt files only"),
    (lambda here: create("fbnetv3_a", pretrained=here / "letters.safetensors"),
     "{here}/letters.safetensors: holds net, not fbnetv3_a; load() the file alone (--model FILE)"),
    (lambda here: create(arch(), pretrained=here / "foreign.safetensors"),
     "{here}/foreign.safetensors: no known layout: keys such as 'weight' are neither of FBNet's releases, "
     "nor timm's, nor ours"),
    (lambda _: small(channels=1), "net: images have shape (1, 1, 32, 32); it takes (batch, 3, height, width)"),
    (lambda _: FBNet(arch())(torch.zeros(3, 32, 32)),
     "net: images have shape (3, 32, 32); it takes (batch, 3, height, width)"),
    (lambda _: FBNet(arch())(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)),
     "net: images are uint8; normalize them: model.preprocess(images)"),
    (lambda _: create("torchvision:resnet18")(torch.zeros(1, 3, 32, 32, dtype=torch.int64)),
     "torchvision:resnet18: images are int64; normalize them: model.preprocess(images)"),
    (lambda _: create("fbnetv3_a")(torch.zeros(1, 3, 32, 32)),
     "fbnetv3_a: images of 32 x 32 are too small; give at least 49 x 49 or build arch.with_symmetric_padding()"),
    # Files
    (lambda here: load(here / "absent.safetensors"), "{here}/absent.safetensors: no such file"),
    (lambda here: load(here / "folder"), "{here}/folder: is a folder, not a weight file"),
    (lambda here: load(here / "foreign.safetensors"),
     "{here}/foreign.safetensors: does not say which network it is for; use create(MODEL, pretrained=...)"),
    (lambda here: load(here / "newer.safetensors"),
     "{here}/newer.safetensors: has format version '2'; this release reads '1', upgrade fbnetv3-zoo"),
    (lambda here: save(create(arch()), here / "net.pt"),
     "{here}/net.pt: weights are saved as .safetensors; change the extension"),
    (lambda _: load(None), f"path is None; {A_WEIGHT_FILE}"),
    (lambda _: load(io.BytesIO()), f"path is of type BytesIO; {A_WEIGHT_FILE}"),
    (lambda _: save("m.safetensors", create(arch())), f"model is 'm.safetensors'; {A_NETWORK}"),
    (lambda _: save(create(arch()), None), "path is None; it must be the path of a file"),
    (lambda _: save(create(arch()).state_dict(), "m.safetensors"),
     f"model is of type OrderedDict; {A_NETWORK}; a state dict alone does not say which network it is of"),
    (lambda _: Description(arch(), Preprocess(32, 32), ("cat", "dog")), "class_names has 2 names; net has 10 classes"),
    # Images
    (lambda _: Preprocess(32, 0), f"Preprocess.resolution is 0; {WHOLE}"),
    (lambda _: Preprocess(28, 32), "Preprocess.resize is 28; it must be at least the resolution, 32"),
    (lambda _: Preprocess(32, 32, "bicubic"), "Preprocess.interpolation is 'bicubic'; it must be an Interpolation"),
    (lambda _: Preprocess(32, 32, mean=(0.5,)), "Preprocess.mean has 1 values and std 3; give one per channel"),
    (lambda _: Preprocess(32, 32, mean=(0.5,), std=(0.0,)), "Preprocess.std is 0.0; it must be a number above 0"),
    (lambda here: Preprocess(8, 8)(here / "image.png"), "'{here}/image.png' is a path; give read_image(path)"),
    (lambda _: Preprocess(8, 8)([Image.new("L", (8, 8)), "cat.jpg"]),
     "images[1]: 'cat.jpg' is a path; give read_image(path)"),
    (lambda _: Preprocess(8, 8)(np.zeros((8, 8, 3), np.uint8)),
     "a NumPy array; give Image.fromarray(array) or torch.from_numpy(array)"),
    (lambda _: Preprocess(8, 8)(None), "NoneType is not an image; give a Pillow image or a tensor"),
    (lambda _: Preprocess(8, 8)([[torch.zeros(3, 8, 8)]]),
     "images[0]: list is not an image; give a Pillow image or a tensor"),
    (lambda _: Preprocess(8, 8)([]), "an empty list; give at least one image"),
    (lambda _: Preprocess(8, 8)(torch.zeros(0, 3, 8, 8)),
     "an empty batch of shape (0, 3, 8, 8); give at least one image"),
    (lambda _: Preprocess(8, 8)(torch.zeros(3, 0, 8)), "an image of 8 x 0 pixels is empty"),
    (lambda _: Preprocess(8, 8)(Image.new("L", (8, 0))), "an image of 8 x 0 pixels is empty"),
    (lambda _: Preprocess(8, 8)(torch.zeros(8, 8)),
     "a tensor of shape (8, 8); give (channels, height, width) or a batch (images, channels, height, width)"),
    (lambda _: Preprocess(8, 8)([torch.zeros(3, 8, 8), torch.zeros(1, 3, 8, 8)]),
     "images[1]: a tensor of shape (1, 3, 8, 8); give (channels, height, width)"),
    (lambda _: Preprocess(8, 8)(torch.zeros(8, 9, 3)),
     "a tensor of shape (8, 9, 3) has 8 channels, not 3 or 1; channels come first: give image.permute(2, 0, 1)"),
    (lambda _: Preprocess(8, 8)(torch.zeros(2, 8, 9, 3)),
     "a tensor of shape (2, 8, 9, 3) has 8 channels, not 3 or 1; channels come first: give image.permute(0, 3, 1, 2)"),
    (lambda _: Preprocess(8, 8)(torch.zeros(4, 8, 9)),
     "a tensor of shape (4, 8, 9) has 4 channels, not 3 or 1; leave out the alpha channel: give image[..., :3, :, :]"),
    (lambda _: Preprocess(8, 8, mean=(0.5,) * 5, std=(0.5,) * 5)(torch.zeros(4, 8, 9)),
     "a tensor of shape (4, 8, 9) has 4 channels, not 5; channels come first: (channels, height, width)"),
    (lambda _: Preprocess(8, 8)(torch.zeros(3, 8, 8, dtype=torch.int64)),
     "a tensor of int64; give uint8 from 0 to 255 or floating numbers from 0 to 1"),
    (lambda _: Preprocess(8, 8)(torch.zeros(1, 8, 8, dtype=torch.bool)),
     "a tensor of bool; give uint8 from 0 to 255 or floating numbers from 0 to 1"),
    (lambda _: Preprocess(8, 8)([torch.linspace(0, 254.96, 192).reshape(3, 8, 8)]),
     "images[0]: a floating tensor from 0 to 255, not from 0 to 1; divide by 255"),
    (lambda _: Preprocess(8, 8)(torch.linspace(-2.117, 2.64, 192).reshape(3, 8, 8)),
     "a floating tensor from -2.117 to 2.64, not from 0 to 1; scale or clamp it, and do not normalize it yet"),
    (lambda _: Preprocess(8, 8)(torch.full((3, 8, 8), math.inf)),
     "a floating tensor from inf to inf, not from 0 to 1; scale or clamp it, and do not normalize it yet"),
    (lambda _: Preprocess(8, 8)(torch.zeros(3, 64).index_fill(1, torch.tensor(63), math.nan).reshape(3, 8, 8)),
     "a tensor with nan; give numbers from 0 to 1"),
    (lambda _: Preprocess(500, 224)(torch.zeros(3, 1, 400_000)),
     "an image of 400000 x 1 pixels is 200000000 x 500 when resized; crop it first"),
    (lambda _: Preprocess(8, 8)([torch.zeros(3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8, device="meta")]),
     "images lie on cpu and meta; move them to one device"),
    (lambda here: read_image(here / "absent.png"), "{here}/absent.png: no such file"),
    (lambda _: read_image(None), f"path is None; {AN_IMAGE_FILE}"),
    (lambda _: read_image(io.BytesIO()), f"path is of type BytesIO; {AN_IMAGE_FILE}"),
    (lambda here: read_image(here / "folder"), "{here}/folder: is a folder; name image files"),
    (lambda here: read_image(here / "garbage.png"),
     "{here}/garbage.png: cannot be read as an image (none of BMP, GIF, ICO, JPEG, JPEG2000, PNG, PPM, TIFF, WEBP)"),
    # Training, evaluation, export
    (lambda _: find_recipe("digit"), f"unknown recipe 'digit' (did you mean 'digits'?); {KNOWN}"),
    (lambda here: find_recipe(here / "absent.json"), "{here}/absent.json: no such file"),
    (lambda here: find_recipe(here / "net.json"),
     '{here}/net.json: recipe JSON lacks "format": "fbnetv3_zoo.recipe"; write such files with to_json()'),
    (lambda _: DIGITS.for_batch_size(1), "batch_size is 1; it must be a whole number of at least 2"),
    (lambda _: recipe_from_json('"epochs"', '"epoch"'), "recipe has an unknown key 'epoch' (did you mean 'epochs'?)"),
    (lambda _: recipe_from_json('"sgd"', '"adam"'), "recipe.optimizer.op is 'adam'; choose from sgd, rms_prop, adam_w"),
    (lambda _: recipe_from_json('"rand_augment"', '"trivial_augment"'),
     "recipe.augmentation.policy.op is 'trivial_augment'; choose from auto_augment, rand_augment"),
    (lambda _: recipe_from_json('"operations": 3', '"operations": -3'),
     f"recipe.augmentation.policy: RandAugment.operations is -3; {WHOLE}"),
    (lambda here: train("fbnetv3_nanoo", digits(), DIGITS, here / "other"),
     "unknown model 'fbnetv3_nanoo' (did you mean 'fbnetv3_nano'?); `fbnetv3 list` shows all"),
    (lambda here: train("torchvision:resnet1", digits(), DIGITS, here / "other"),
     "torchvision has no model 'resnet1' (did you mean 'resnet18'?)"),
    (lambda here: train(None, digits(), DIGITS, here / "other"), f"arch is None; {AN_ARCH}"),
    (lambda here: train(torch.nn.Sequential(torch.nn.ReLU()), digits(), DIGITS, here / "other"),
     f"arch is of type Sequential; {AN_ARCH}"),
    (lambda here: train(FBNet, digits(), DIGITS, here / "other"), f"arch is the class FBNet; {AN_ARCH}"),
    (lambda here: train(FBNet(arch()), digits(), DIGITS, here / "other"),
     f"arch is of type FBNet; {AN_ARCH}; that of a network is network.arch"),
    (lambda here: train(arch(), digits(), None, here / "other"), f"recipe is None; {A_RECIPE}"),
    (lambda here: train(arch(), digits(), {"epochs": 1}, here / "other"), f"recipe is {{'epochs': 1}}; {A_RECIPE}"),
    (lambda here: train(arch(), digits(), "digits", here / "other"), f"recipe is 'digits'; {A_RECIPE}"),
    (lambda here: train(arch(), digits(), "own\nrecipe", here / "other"), f"recipe is 'own\\nrecipe'; {A_RECIPE}"),
    (lambda here: train(arch(), digits(), fit_recipe, here / "other"),
     f"recipe is the function fit_recipe; {A_RECIPE}"),
    (lambda here: train(arch(), digits(), DIGITS, None),
     "folder is None; it must be the path of a folder, such as 'runs/first'"),
    (lambda here: train(arch(), digits(), DIGITS, here / "other", execution={"device": "cpu"}),
     "execution is {'device': 'cpu'}; it must be an Execution, such as Execution(device='cuda')"),
    (lambda here: train(arch(), digits(), DIGITS, here / "other", callbacks=Callback()),
     f"callbacks is of type Callback; it must be a list of {CALLBACKS}"),
    (lambda _: find_dataset([]),
     "find_dataset takes 'digits' or a path, not list; give datasets of other libraries to as_dataset"),
    (lambda _: find_dataset(digits()),
     "find_dataset takes 'digits' or a path, not Dataset; give datasets of other libraries to as_dataset"),
    (lambda here: train(arch(), digits(), DIGITS, here / "other", teacher=here / "letters.safetensors"),
     "teacher {here}/letters.safetensors: its classes differ from those of digits; class 0 is 'a', but '0' in "
     "digits; train one on this data"),
    (lambda here: train(arch(), digits(), DIGITS, here / "other", teacher=here / "three.safetensors"),
     "teacher {here}/three.safetensors: has logits of shape (3,), but digits has 10 classes"),
    (lambda here: train(arch(), digits(), DIGITS, here / "other", teacher=here / "notes.txt"),
     "{here}/notes.txt: weights are read from .safetensors files only"),
    (lambda here: distil([], digits(), here / "other"), "there are no networks to distil; give at least one"),
    (lambda here: distil(None, digits(), here / "other"),
     "members is None; it must be a list of Member(ARCH, RECIPE)"),
    (lambda here: distil([3], digits(), here / "other"), "members[0] is 3; it must be a Member(ARCH, RECIPE)"),
    (lambda here: distil([Member("fbnetv3_nano", DIGITS)], digits(), here / "other"),
     "members[0].arch is 'fbnetv3_nano'; it must be an Arch, such as ARCHS['fbnetv3_nano']"),
    (lambda here: distil([Member(arch(), DIGITS)] * 2, digits(), here / "other"),
     "two runs would share the folder {here}/other/net; give the networks different names"),
    (lambda here: find_dataset("digits", subset=here / "subset.json"),
     "digits: has no class 'x', unlike the subset of others"),
    (lambda here: find_dataset(here / "absent"),
     "{here}/absent: no such folder; give 'digits' or a folder of class folders"),
    (lambda here: find_dataset(here / "one_class"),
     "{here}/one_class: needs at least 2 class folders, has 1; put the images of each class into a folder of its own"),
    (lambda _: fit_recipe(digits()), "images is of type Dataset; it must be a whole number of at least 2"),
    (lambda here: train(arch(), find_dataset("digits"), RECIPES["digits"], here / "used"),
     "{here}/used: holds a run; continue it with --resume (resume=True), or give another folder"),
    (lambda _: evaluate(lambda images: images, [], Preprocess(32, 32)),
     "this split has no images to evaluate on; choose another split"),
    (lambda here: export_onnx(create(arch()), here / "net.pb"),
     "{here}/net.pb: ONNX files end in .onnx; change the extension"),
    (lambda here: export_onnx(create(arch()), here / "net.onnx", opset=11), "opset is 11; choose from 18 to 23"),
    (lambda _: export_onnx("fbnetv3_nano", "x.onnx"), f"model is 'fbnetv3_nano'; {A_NETWORK}"),
    (lambda _: export_onnx("x.onnx", create(arch())), f"model is 'x.onnx'; {A_NETWORK}"),
    (lambda _: export_onnx(create(arch()), create(arch())), "path is of type FBNet; it must be the path of a file"),
    (lambda _: export_onnx(RESNET, "x.onnx"), f"model is of type ResNet; {A_NETWORK}"),
    (lambda _: export_executorch(RESNET, "x.pte"), f"model is of type ResNet; {A_NETWORK}"),
    (lambda _: export_mobile(RESNET, "x.ort"), f"source is of type ResNet; {A_NETWORK}"),
    (lambda _: export_openvino("x.xml", create(arch())), "path is of type FBNet; it must be the path of a file"),
    (lambda _: export_openvino(RESNET, "x.xml"), f"source is of type ResNet; {A_NETWORK}"),
    (lambda _: export_litert(RESNET, "x.tflite"), f"source is of type ResNet; {A_NETWORK}"),
    (lambda _: export_all("fbnetv3_nano", "exports", []), f"network is 'fbnetv3_nano'; {A_NETWORK}"),
    (lambda _: export_all(create(arch()), "exports", None),
     "images is None; it must be a list of images, or a folder of them"),
    (lambda _: write_web(RESNET, "page"), f"model is of type ResNet; {A_NETWORK}"),
    (lambda _: save_pretrained(RESNET, "repository"), f"model is of type ResNet; {A_NETWORK}"),
    (lambda _: push_to_hub(RESNET, "me/mine"), f"model is of type ResNet; {A_NETWORK}"),
    (lambda _: quantize("x.onnx", "y.onnx", None),
     "images is None; it must be a list of images, or a folder of them"),
    (lambda _: quantize(create(arch()), "y.onnx", []), "source is of type FBNet; it must be the path of a file"),
    # Searches
    (lambda here: run_search("tinny", max, here / "other"),
     "unknown plan 'tinny' (did you mean 'tiny'?); shipped are paper, paper-literal, paper_recipe, tiny, letters, "
     "others are files"),
    (lambda here: run_search(None, max, here / "other"),
     "a plan is named by text, a path or a SearchPlan; this is None"),
    (lambda here: run_search("tiny", None, here / "other"),
     "evaluator is None; it must be a function of a candidate and epochs"),
    (lambda _: run_search("tiny", max, None),
     "folder is None; it must be the path of a folder, such as 'runs/search'"),
    (lambda here: run_search("tiny", max, here / "other", limits=60),
     "limits is 60; it must be a Limits, such as Limits(seconds=60)"),
    (lambda here: run_search("tiny", max, here / "other", executor="pol"),
     "unknown executor 'pol' (did you mean 'pool'?); choose from in-process, pool, pool:N, ray, ray:ADDRESS, "
     "ray://HOST:10001"),
    (lambda here: run_search("tiny", max, here / "other", executor=4),
     "executor is 4; it must be text: in-process, pool, pool:N, ray, ray:ADDRESS, ray://HOST:10001"),
    (lambda _: parse_constraint(5), "constraint is 5; it must be text, such as 'macs<=450M'"),
    (lambda _: parse_constraint("macs>=1M"), "bound 'macs>=1M' cannot be read; write '1M<=macs'"),
    (lambda _: parse_constraint("macs"),
     "bound 'macs' cannot be read; write 'macs<=450M' or '400M<=macs<=800M,parameters<=10M'"),
    # Classification
    (lambda _: Classifier.of("fbnetv3_nano"), f"model is 'fbnetv3_nano'; {A_NETWORK}"),
    (lambda _: Classifier.open(None), "path is None; it must be the path of a model file, such as 'model.onnx'"),
    (lambda _: Classifier.of(create(arch()).eval())("x.png"), "'x.png' is a path; give read_image(path)"),
    (lambda _: Classifier.of(create(arch()).eval())(["x.png"]), "images[0]: 'x.png' is a path; give read_image(path)"),
    (lambda _: Classifier.of(create(arch()).eval())(None),
     "NoneType is not an image; give a Pillow image, or a list of them"),
    (lambda _: Classifier.of(create(arch()).eval())([torch.zeros(3, 8, 8)]),
     "images[0]: Tensor is not an image; give a Pillow image"),
    (lambda here: Classifier.open(here / "notes.txt"),
     "{here}/notes.txt: is not a model file; give one that ends in .safetensors, .onnx, .ort, .xml, .pte, .param, "
     ".tflite or .mlpackage"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), CALLS, ids=[message[:60] for _, message in CALLS])
def test_wrong_call(call: Callable[[Path], object], message: str, here: Path) -> None:
    assert refusal(lambda: call(here)) == message.replace("{here}", str(here))


# Arguments are split at blanks. What typer itself finds out ends in a pointer to the help; where the words within are
# another library's and differ from release to release, {...} stands for them.
COMMANDS: list[tuple[str, str]] = [
    ("trian", "No such command 'trian'. Did you mean 'train'? (see `fbnetv3 --help`)"),
    ("list --bogus", "No such option: --bogus (see `fbnetv3 list --help`)"),
    ("train", "Missing option '--output'. (see `fbnetv3 train --help`)"),
    ("train --output {here}/new --epochs many",
     "--epochs is 'many'; it must be a whole number (see `fbnetv3 train --help`)"),
    ("train --output {here}/new --epochs=1.5",
     "--epochs is '1.5'; it must be a whole number (see `fbnetv3 train --help`)"),
    ("info fbnetv3_a --width wide", "--width is 'wide'; it must be a number (see `fbnetv3 info --help`)"),
    ("validate {here}/letters.safetensors --split some",
     "Invalid value for '--split': {...}'some' is not one of 'all', {...} (see `fbnetv3 validate --help`)"),
    ("classify {here}/image.png --model {here}/letters.safetensors --top 0",
     "--top is 0; it must be at least 1 (see `fbnetv3 classify --help`)"),
    ("info fbnetv3_a fbnetv3_b", "Got unexpected extra argument{...} (see `fbnetv3 info --help`)"),
    ("classify x.png --model", "Option '--model' requires an argument. (see `fbnetv3 classify --help`)"),
    ("list fbnetv3_c --commercial",
     "no model with weights for commercial use matches 'fbnetv3_c'; `fbnetv3 list` shows all"),
    ("list resnet*", "no model matches 'resnet*'; `fbnetv3 list` shows all"),
    ("train PHOTOS --model resnet50 --output o",
     "unknown model 'resnet50' (did you mean 'torchvision:resnet50'?); `fbnetv3 list` shows all of ours"),
    ("info resnet50",
     "unknown model 'resnet50' (did you mean 'torchvision:resnet50'?); `fbnetv3 list` shows all of ours"),
    ("info fbnet_v3_a", "unknown model 'fbnet_v3_a' (did you mean 'fbnetv3_a'?); `fbnetv3 list` shows all"),
    ("info {here}/absent.json", "{here}/absent.json: no such file"),
    ("info {here}/image.png", "{here}/image.png: is a file, not a model; `fbnetv3 list` shows all"),
    ("export onnx {here}/run", "{here}/run: is a folder; give the model in it, {here}/run/model.safetensors"),
    ("train --model {here}/folder --output {here}/new",
     "{here}/folder: is a folder, not a model; `fbnetv3 list` shows all"),
    ("recipe show {here}/run", "{here}/run: is a folder; give the recipe in it, {here}/run/recipe.json"),
    ("detect train {here}/none.json --output {here}/new", "{here}/none.json: no such file"),
    ("train --output {here}/new --lr -1", "--lr is -1.0; it must be a number above 0"),
    ("info {here}/folder.json", "{here}/folder.json: is a folder, not a JSON file of format fbnetv3_zoo.arch"),
    ("info fbnetv3_a --width 0", "scaled: width is 0.0; it must be a number above 0"),
    ("info fbnetv3_a --depth nan", "scaled: depth is nan; it must be a number above 0"),
    ("info fbnetv3_a --resolution 32", "fbnetv3_a: resolution is 32; its strides and padding need at least 49"),
    ("info {here}/net.json --small-images", "net: for_small_images needs two rows of stride 2; this network has 1"),
    ("train --output {here}/new --epochs 0", f"--epochs is 0; {WHOLE}"),
    ("train --output {here}/new --learning-rate -1", "--learning-rate is -1.0; it must be a number above 0"),
    ("train --output {here}/new --seed -1", "seed is -1; it must be a whole number of at least 0"),
    ("train --output {here}/new --model {here}/net.json --workers -1",
     "--workers is -1; it must be a whole number of at least 0"),
    ("train --output {here}/new --precision double",
     "Invalid value for '--precision': {...}'double' is not one of 'float32', 'bf16', 'fp16'.{...}"),
    ("train --output {here}/new --on-bad-image ignore",
     "Invalid value for '--on-bad-image': {...}'ignore' is not one of 'raise', 'skip'. (see `fbnetv3 train --help`)"),
    ("train --output {here}/new --model {here}/net.json --accumulation 3",
     "batches of 64 images cannot be divided into 1 processes x 3 parts of at least 2 images; "
     "use a multiple of 3, such as 63"),
    ("train --output {here}/new --model {here}/net.json --batch-size 1",
     "batch_size is 1; it must be a whole number of at least 2"),
    ("train --output {here}/new --keep-checkpoints 0", f"--keep-checkpoints is 0; {WHOLE}"),
    ("train --output {here}/new --recipe digit", f"unknown recipe 'digit' (did you mean 'digits'?); {KNOWN}"),
    ("train --output {here}/new --recipe {here}/net.json",
     '{here}/net.json: recipe JSON lacks "format": "fbnetv3_zoo.recipe"; write such files with to_json()'),
    ("train --output {here}/new --model {here}/photos.json",
     '{here}/photos.json: arch JSON lacks "format": "fbnetv3_zoo.arch"; write such files with to_json()'),
    ("train --output {here}/new --subset {here}/absent.json", "{here}/absent.json: no such file"),
    ("train --output {here}/new --model {here}/net.json --teacher {here}/absent.onnx",
     "{here}/absent.onnx: no such file"),
    ("train --output {here}/new --model {here}/net.json --teacher {here}/letters.safetensors",
     "teacher {here}/letters.safetensors: its classes differ from those of digits; class 0 is 'a', but '0' in "
     "digits; train one on this data"),
    ("train --output {here}/new --model fbnetv3_b --pretrained --weights {here}/letters.safetensors",
     "--pretrained and --weights both give weights to start from; give only one"),
    ("distil --output {here}/new", "Missing option '--models'. (see `fbnetv3 distil --help`)"),
    ("distil --output {here}/new --models fbnetv3_a,fbnetv3_h",
     "unknown model 'fbnetv3_h' (did you mean 'fbnetv3_g'?); `fbnetv3 list` shows all"),
    ("distil --output {here}/new --models {here}/net.json,{here}/net.json",
     "two runs would share the folder {here}/new/net; give the networks different names"),
    ("distil --output {here}/new --models fbnetv3_a,fbnet_c --recipe own",
     "--recipe own: there is no recipe 'fbnet_c'; choose one for all (`fbnetv3 recipe list`)"),
    ("distil --output {here}/new --models {here}/net.json --recipe own",
     "--recipe own: there is no recipe '{here}/net.json'; choose one for all (`fbnetv3 recipe list`)"),
    ("distil --output {here}/new --models fbnetv3_a --recipe fbnetv3_h",
     f"unknown recipe 'fbnetv3_h' (did you mean 'fbnetv3_g'?); {KNOWN}"),
    ("recipe show digit", f"unknown recipe 'digit' (did you mean 'digits'?); {KNOWN}"),
    ("recipe show {here}/absent.json", "{here}/absent.json: no such file"),
    ("recipe shwo", "No such command 'shwo'. Did you mean 'show'? (see `fbnetv3 recipe --help`)"),
    ("train --output {here}/new --data {here}/absent",
     "{here}/absent: no such folder; give 'digits' or a folder of class folders"),
    ("train --output {here}/new --model {here}/net.json --weights {here}/absent.safetensors",
     "{here}/absent.safetensors: no such file"),
    ("train --output {here}/used --model {here}/net.json",
     "{here}/used: holds a run; continue it with --resume (resume=True), or give another folder"),
    ("train --output {here}/notes.txt --model {here}/net.json",
     "{here}/notes.txt: is a file; give the path of a folder"),
    ("train --output {here}/notes.txt/run --model {here}/net.json",
     "{here}/notes.txt/run: cannot be created ({here}/notes.txt is a file, not a folder)"),
    ("train --output= --model {here}/net.json",
     "the value of --output is empty; give one, or leave it out (is a variable of the shell not set?)"),
    ("train --output {here}/new --config {here}/photos.json",
     "{here}/photos.json: is a recipe, not options of a command; give it as --recipe"),
    ("detect train --output {here}/new --config {here}/net.json",
     "{here}/net.json: is a network, not options of a command; give it as --model"),
    ("search dnas --output {here}/new --config {here}/photos.json",
     "{here}/photos.json: is a recipe, not options of a command; give an output folder's config.json, or an object "
     "such as {\"epochs\": 10}"),
    ("train --output {here}/new --config {here}/garbage.json",
     "{here}/garbage.json: JSON of options cannot be read: Expecting value: line 1 column 1 (char 0); correct the "
     "file, or write it again"),
    ("train --output {here}/new --config {here}/unset.json",
     "{here}/unset.json: --data is empty; give it a value, or leave it out"),
    ("train --output {here}/new --recipe {here}/empty.json",
     "{here}/empty.json: recipe JSON cannot be read: it is empty; correct the file, or write it again"),
    ("classify {here}/image.png --model {here}/empty.onnx",
     "{here}/empty.onnx: cannot be read as ONNX (the file is empty); export it again, or get another copy"),
    ("validate {here}/empty.safetensors",
     "{here}/empty.safetensors: cannot be read as safetensors (the file is empty); fetch or save it again"),
    ("train {here}/empty.safetensors --output {here}/new",
     "{here}/empty.safetensors: cannot be read as a data set (the file is empty); make it again"),
    ("demo --output {here}/new --epochs 0", "--epochs is 0; it must be at least 1 (see `fbnetv3 demo --help`)"),
    ("demo --output {here}/new --seed -1", "--seed is -1; it must be at least 0 (see `fbnetv3 demo --help`)"),
    ("validate {here}/letters.safetensors --seed -1", "seed is -1; it must be a whole number of at least 0"),
    ("validate {here}/absent.onnx", "{here}/absent.onnx: no such file"),
    ("validate {here}/folder",
     "{here}/folder: is not a model file; give one that ends in .safetensors, .onnx, .ort, .xml, .pte, .param, "
     ".tflite or .mlpackage"),
    ("validate {here}/letters.safetensors",
     "{here}/letters.safetensors: its classes differ from those of digits; class 0 is 'a', but '0' in digits"),
    ("validate {here}/three.safetensors", "{here}/three.safetensors: has 3 classes, but digits has 10"),
    ("export onnx {here}/garbage.safetensors",
     "{here}/garbage.safetensors: cannot be read as safetensors ({...}); fetch or save it again"),
    ("export onnx {here}/net.json --output {here}/net.txt",
     "{here}/net.txt: ONNX files end in .onnx; change the extension"),
    ("export onnx {here}/net.json --output {here}/net.onnx --opset 9", "opset is 9; choose from 18 to 23"),
    ("export onnx {here}/net.json --output {here}/notes.txt/net.onnx",
     "{here}/notes.txt/net.onnx: cannot be written ({here}/notes.txt is a file, not a folder)"),
    ("export int8 {here}/garbage.onnx --images {here}/folder",
     "{here}/garbage.onnx: cannot be read as ONNX ({...}); export it again, or get another copy"),
    ("export int8 {here}/garbage.onnx --images {here}/folder --output {here}/net.ort",
     "{here}/net.ort: int8 files end in .onnx (ONNX Runtime), .xml (OpenVINO) or .tflite (LiteRT); change "
     "the extension"),
    ("export int8 {here}/garbage.onnx", "give calibration images, either --images FOLDER or --data SOURCE"),
    ("export int8 {here}/garbage.onnx --images {here}/folder --data digits",
     "give calibration images, either --images FOLDER or --data SOURCE"),
    ("export onnx {here}/net.json --output {here}/net.onnx --align 0",
     "align is 0; it must be a whole number of at least 1"),
    ("export all {here}/net.json --output {here}/exports",
     "give calibration images, either --images FOLDER or --data SOURCE"),
    ("export all {here}/net.json --images {here}/folder --output {here}/used",
     "{here}/used: has other files than an export of this command; give another folder"),
    ("export all {here}/net.json --images {here}/folder --output {here}/exports",
     "{here}/folder: no images; give at least 8 images like those the network will be used on"),
    ("export all {here}/net.json --images {here}/folder --output {here}/exports --threads 0",
     "--threads has '0'; give whole numbers from 1 to 1024, separated by commas"),
    ("export web {here}/garbage.onnx --out {here}/page",
     "{here}/garbage.onnx: cannot be read as ONNX ({...}); export it again, or get another copy"),
    ("export web {here}/garbage.onnx --out {here}/used",
     "{here}/used: has other files than a page of this command; give another folder"),
    ("export web {here}/garbage.onnx --out {here}/page --sample {here}/garbage.png",
     "{here}/garbage.png: cannot be read as an image (none of {...})"),
    ("serve-demo {here}/absent",
     "{here}/absent: no such folder; write one with `fbnetv3 export web MODEL --out FOLDER`"),
    ("serve-demo {here}/folder --port 0",
     "{here}/folder: has no page; write one with `fbnetv3 export web MODEL --out FOLDER`"),
    ("classify {here}/image.png --model {here}/garbage.onnx",
     "{here}/garbage.onnx: cannot be read as ONNX ({...}); export it again, or get another copy"),
    ("classify {here}/image.png --model {here}/notes.txt",
     "{here}/notes.txt: is not a model file; give one that ends in .safetensors, .onnx, .ort, .xml, .pte, .param, "
     ".tflite or .mlpackage"),
    ("classify {here}/folder --model {here}/letters.safetensors",
     "{here}/folder: has no images (JPEG, PNG, WebP, TIFF, BMP)"),
    ("classify {here}/absent.png --model {here}/letters.safetensors", "{here}/absent.png: no such file"),
]  # fmt: skip


def run(line: str) -> tuple[object, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as caught:
        main(line.split())
    return caught.value.code, out.getvalue(), err.getvalue()


def same(text: str, expected: str) -> bool:
    """Whether ``text`` is ``expected``, with anything on the line for its ``{...}``."""
    return re.fullmatch(".*".join(map(re.escape, expected.split("{...}"))), text) is not None


@pytest.mark.parametrize(("line", "message"), COMMANDS, ids=[line for line, _ in COMMANDS])
def test_wrong_command(line: str, message: str, here: Path) -> None:
    line, message = (text.replace("{here}", str(here)) for text in (line, message))
    code, out, err = run(line)
    assert (code, out) == (2, "")
    assert same(err, f"error: {message}\n"), err
    assert [path.name for path in (here / "new").rglob("*") if path.is_file()] in ([], [".fbnetv3-zoo.lock"])


@pytest.mark.parametrize(("name", "hint"), [("nope", ""), ("gpu", "a GPU is called 'cuda'; ")])
def test_unknown_device(name: str, hint: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # then the number of threads depends on the device
    with pytest.raises(RuntimeError) as caught:
        torch.device(name)
    code, out, err = run(f"train --output {here}/new --model {here}/net.json --device {name}")
    reason = str(caught.value).splitlines()[0]
    there = ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
    assert (code, out) == (2, "")
    assert err == f"error: device {name!r} cannot be used ({reason}); {hint}choose from {', '.join(there)}\n"


def test_demo_into_a_file(here: Path) -> None:
    code, out, err = run(f"demo --output {here}/notes.txt")
    assert (code, out) == (2, "")
    assert err == f"error: {here}/notes.txt: is a file; give the path of a folder\n"


@pytest.mark.parametrize("number", [0, -1])
def test_the_same_in_a_process_of_its_own(number: int, here: Path) -> None:
    """A first and a last row of the table, without the test's own interpreter around it."""
    line, message = (text.replace("{here}", str(here)) for text in COMMANDS[number])
    command = [sys.executable, "-c", "from fbnetv3_zoo.cli import main; main()", *line.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {message}\n")

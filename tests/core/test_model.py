"""The module: what it is built of, what it answers, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from strategies import archs
from torch import Tensor, nn

from fbnetv3_zoo.arch import Activation, Arch, Conv, InvertedResidual, PoolingHead
from fbnetv3_zoo.arch.cost import arch_cost
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.models.blocks import build_block
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.zoo import ARCHS


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_seeded(1))


@pytest.mark.parametrize("name", [name for name in ARCHS if name != "fbnetv3_nano"])
@torch.inference_mode()
def test_published_networks_give_their_maps_and_logits(name: str) -> None:
    arch = ARCHS[name]
    with torch.device("meta"):
        model = FBNet(arch).eval()
        maps = model.feature_maps(torch.empty(2, 3, arch.resolution, arch.resolution))
        logits = model.forward_head(maps["stride32"])
    assert logits.shape == (2, 1000)
    trunk = [line for line in arch_cost(arch).blocks if line.block.stage < arch.trunk_depth]
    expected = {f"stride{line.block.reduction}": (line.block.out_channels, line.size) for line in trunk}
    assert {key: (x.shape[1], x.shape[2]) for key, x in maps.items()} == expected
    assert list(maps) == ["stride2", "stride4", "stride8", "stride16", "stride32"]
    assert [(info.name, info.channels) for info in model.feature_info] == [(k, c) for k, (c, _) in expected.items()]
    assert [info.stride for info in model.feature_info] == [2, 4, 8, 16, 32]


@settings(max_examples=30)
@given(archs())
@torch.inference_mode()
def test_feature_maps_end_in_forward_features(arch: Arch) -> None:
    model = FBNet(arch, generator=_seeded()).eval()
    images = _images(2, arch.in_channels, arch.resolution, arch.resolution)
    maps, features = model.feature_maps(images), model.forward_features(images)
    assert list(maps) == [info.name for info in model.feature_info]
    assert [x.shape[1] for x in maps.values()] == [info.channels for info in model.feature_info]
    torch.testing.assert_close(list(maps.values())[-1] if maps else images, features)
    torch.testing.assert_close(model.forward_head(features), model(images))


@torch.inference_mode()
def test_features_before_the_classifier(tiny_arch: Arch) -> None:
    model = FBNet(tiny_arch, generator=_seeded()).eval()
    features = model.forward_features(_images(2, 3, 32, 32))
    assert features.shape == (2, 16, 8, 8)
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, 32)
    torch.testing.assert_close(model.classifier(pooled), model.forward_head(features))


def test_names_in_the_state_dict_follow_the_network() -> None:
    relu = Activation.RELU
    rows = (InvertedResidual(3, 8, 1, 2, 1, relu), InvertedResidual(3, 16, 2, 1, 3, relu, conv_bias=True))
    arch = Arch("net", 32, ((Conv(3, 8, 2, relu),), rows, (PoolingHead(32, 2, relu),)))
    with torch.device("meta"):
        keys = list(FBNet(arch).state_dict())
    expected = [
        *_conv_norm("stages.0.0", bias=True),
        *(key for n in (0, 1) for part in ("depthwise", "project") for key in _conv_norm(f"stages.1.{n}.{part}")),
        *(key for part in ("expand", "depthwise", "project") for key in _conv_norm(f"stages.1.2.{part}", bias=True)),
        *_conv_norm("stages.2.0.expand"),
        "stages.2.0.project.weight",
        "classifier.weight",
        "classifier.bias",
    ]
    assert keys == expected


def _conv_norm(prefix: str, *, bias: bool = False) -> list[str]:
    norm = [f"{prefix}.norm.{key}" for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]
    return [f"{prefix}.conv.weight", *([f"{prefix}.conv.bias"] if bias else []), *norm]


def test_squeeze_excite_names(tiny_arch: Arch) -> None:
    keys = [key for key in FBNet(tiny_arch).state_dict() if key.startswith("stages.1.1.squeeze_excite.")]
    parts = [key.removeprefix("stages.1.1.squeeze_excite.") for key in keys]
    assert parts == ["reduce.weight", "reduce.bias", "expand.weight", "expand.bias"]


@pytest.mark.parametrize("shape", [(1, 1), (32, 32), (33, 47), (1, 64), (224, 96)])
@torch.inference_mode()
def test_any_size_from_the_smallest_on(tiny_arch: Arch, shape: tuple[int, int]) -> None:
    model = FBNet(tiny_arch, generator=_seeded()).eval()
    assert model(_images(2, 3, *shape)).shape == (2, 10)
    expected = (2, 16, -(-shape[0] // 4), -(-shape[1] // 4))
    assert model.forward_features(_images(2, 3, *shape)).shape == expected


@pytest.mark.parametrize("name", ["fbnetv3_a", "fbnetv3_e", "fbnetv3_g"])
@torch.inference_mode()
def test_small_images_with_symmetric_padding(name: str) -> None:
    with torch.device("meta"):
        model = FBNet(ARCHS[name].with_symmetric_padding()).eval()
        assert model.forward_features(torch.empty(1, 3, 32, 32)).shape[-2:] == (1, 1)


@torch.inference_mode()
def test_uneven_images_of_a_network_with_narrow_padding() -> None:
    with torch.device("meta"):
        model = FBNet(ARCHS["fbnetv3_a"]).eval()
        assert model(torch.empty(1, 3, 101, 333)).shape == (1, 1000)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_input_channels(tiny_arch: Arch, channels: int) -> None:
    model = create(tiny_arch, in_chans=channels)
    assert model.arch.in_channels == channels
    assert model(_images(2, channels, 32, 32)).shape == (2, 10)
    assert len(model.preprocess.mean) == channels


@pytest.mark.parametrize("shape", [(2, 4, 32, 32), (3, 32, 32), (2, 32, 32, 3)])
def test_images_of_the_wrong_shape_are_refused(tiny_arch: Arch, shape: tuple[int, ...]) -> None:
    with pytest.raises(ZooError) as caught:
        FBNet(tiny_arch)(torch.zeros(shape))
    assert str(caught.value) == f"tiny: images have shape {shape}; it takes (batch, 3, height, width)"


def test_images_too_small_are_refused_with_the_remedy() -> None:
    with torch.device("meta"):
        model = FBNet(ARCHS["fbnetv3_a"])
    with pytest.raises(ZooError) as caught:
        model(torch.zeros(1, 3, 48, 224))
    text = "fbnetv3_a: images of 48 x 224 are too small; give at least 49 x 49 or build arch.with_symmetric_padding()"
    assert str(caught.value) == text


@pytest.mark.parametrize("option", ["drop_rate", "drop_path_rate"])
def test_probabilities_are_checked(tiny_arch: Arch, option: str) -> None:
    with pytest.raises(ZooError) as caught:
        FBNet(tiny_arch, **{option: 1.0})  # type: ignore[arg-type]
    assert str(caught.value) == f"{option} is 1.0; it must be a number at least 0 and below 1"


def test_a_new_classifier(tiny_arch: Arch) -> None:
    model = FBNet(tiny_arch, generator=_seeded())
    model.class_names = tuple("abcdefghij")
    body = {key: value.clone() for key, value in model.state_dict().items() if not key.startswith("classifier.")}
    model.reset_classifier(7, generator=_seeded(5))
    assert model.arch == replace(tiny_arch, num_classes=7)
    assert model.class_names is None
    assert model(_images(2, 3, 32, 32)).shape == (2, 7)
    again = FBNet(tiny_arch)
    again.reset_classifier(7, generator=_seeded(5))
    assert torch.equal(again.classifier.weight, model.classifier.weight)
    fresh = FBNet(tiny_arch, generator=_seeded())
    assert all(torch.equal(fresh.state_dict()[key], value) for key, value in body.items())
    with pytest.raises(ZooError, match="tiny: num_classes is 0; it must be a whole number of at least 1"):
        model.reset_classifier(0)


@torch.inference_mode()
def test_dropout_is_before_the_classifier_and_in_training_only(tiny_arch: Arch) -> None:
    model = FBNet(tiny_arch, drop_rate=0.5, generator=_seeded())
    seen: list[Tensor] = []
    model.classifier.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    features = torch.rand(500, 16, 4, 4, generator=_seeded(2)) + 1
    torch.manual_seed(0)
    dropped = (model(_images(2, 3, 32, 32)), model.forward_head(features), seen[-1])[-1]
    alive = model.forward_head(features, pre_logits=True)
    kept = dropped != 0
    assert kept.float().mean() == pytest.approx((alive != 0).float().mean().item() / 2, abs=0.02)
    torch.testing.assert_close(dropped[kept], 2 * alive[kept])
    model.eval()
    assert torch.equal(model.forward_head(features), model.forward_head(features))


@pytest.mark.parametrize("name", ["fbnetv3_a0", "fbnetv3_a", "fbnet_a"])
def test_stochastic_depth_rises_linearly(name: str) -> None:
    arch = ARCHS[name]
    with torch.device("meta"):
        model = FBNet(arch, drop_path_rate=0.2)
    blocks = [block for stage in model.stages.children() for block in stage.children()]
    residuals = [block for block, b in zip(blocks, arch.blocks, strict=True) if isinstance(b.row, InvertedResidual)]
    rates = [getattr(getattr(block, "drop_path", None), "p", 0.0) for block in residuals]
    for n, (block, rate) in enumerate(zip(residuals, rates, strict=True)):
        expected = 0.2 * n / (len(residuals) - 1) if block.has_residual else 0.0
        assert rate == pytest.approx(expected)
    assert rates[0] == 0
    assert max(rates) == pytest.approx(0.2) or not residuals[-1].has_residual


def test_stochastic_depth_leaves_out_whole_images() -> None:
    row = InvertedResidual(3, 8, 1, 1, 2, Activation.RELU)
    arch = Arch("net", 8, ((Conv(1, 8, 1, Activation.RELU), row),))
    block = build_block(arch.blocks[1], drop_path_rate=0.25)
    images = _images(400, 8, 4, 4)
    torch.manual_seed(0)
    with torch.no_grad():
        added = block(images) - images
        branch = nn.Sequential(*(part for name, part in block.named_children() if name != "drop_path"))(images)
    dropped = (added == 0).flatten(1).all(1)
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.05)
    torch.testing.assert_close(added[~dropped], branch[~dropped] / 0.75, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_stochastic_depth_rests_in_evaluation(tiny_arch: Arch) -> None:
    model = FBNet(tiny_arch, drop_path_rate=0.9, generator=_seeded()).eval()
    plain = FBNet(tiny_arch, generator=_seeded()).eval()
    assert list(model.state_dict()) == list(plain.state_dict())
    assert torch.equal(model(_images(8, 3, 32, 32)), plain(_images(8, 3, 32, 32)))

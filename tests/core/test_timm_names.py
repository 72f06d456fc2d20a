"""The names that users of timm, torchvision and torch.hub type: arguments, attributes, feature maps."""

from __future__ import annotations

from inspect import Parameter, signature
from pathlib import Path

import pytest
import torch

import fbnetv3_zoo
from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.models.features import FBNetFeatures
from fbnetv3_zoo.zoo import ARCHS


def _images(arch: Arch) -> torch.Tensor:
    side = arch.resolution
    return torch.randn(2, arch.in_channels, side, side, generator=torch.Generator().manual_seed(1))


def test_aliases() -> None:
    assert fbnetv3_zoo.create_model is fbnetv3_zoo.create
    assert fbnetv3_zoo.list_pretrained is fbnetv3_zoo.list_weights
    assert "fbnetv3_a.fb_in1k" in fbnetv3_zoo.list_pretrained("fbnetv3_*")


def test_arguments_of_create_are_those_of_timm() -> None:
    parameters = dict(signature(fbnetv3_zoo.create_model).parameters)
    assert parameters.pop("model").kind is Parameter.POSITIONAL_OR_KEYWORD
    assert {parameter.kind for parameter in parameters.values()} == {Parameter.KEYWORD_ONLY}
    timm = {"pretrained", "num_classes", "in_chans", "drop_rate", "drop_path_rate", "features_only", "out_indices"}
    assert parameters.keys() == timm | {"generator", "cache"}


@torch.inference_mode()
def test_arguments_take_effect(tiny_arch: Arch) -> None:
    model = create(tiny_arch, num_classes=4, in_chans=1, drop_rate=0.25, drop_path_rate=0.5).eval()
    assert (model.num_classes, model.arch.in_channels, model.dropout.p) == (4, 1, 0.25)
    assert max(getattr(module, "p", 0) for name, module in model.named_modules() if "drop_path" in name) == 0.5
    assert model(_images(model.arch)).shape == (2, 4)


@pytest.mark.parametrize("name", ["fbnet_a", "fbnetv2_l1", "fbnetv3_a"])
def test_attributes(name: str) -> None:
    with torch.device("meta"):
        model = FBNet(ARCHS[name]).eval()
        features = model.forward_features(torch.empty(1, 3, 224, 224))
        hidden = model.forward_head(features, pre_logits=True)
    assert model.num_features == features.shape[1] == model.feature_info.channels()[-1]
    assert model.head_hidden_size == hidden.shape[1] == model.get_classifier().in_features
    assert model.get_classifier() is model.classifier
    assert model.license is None
    model.reset_classifier(3)
    assert (model.num_classes, model.get_classifier().out_features) == (3, 3)


@pytest.mark.parametrize("name", ["fbnetv3_b", "fbnetv3_g"])
def test_feature_maps_and_widths_are_those_of_timm(name: str) -> None:
    """But for stride 32: timm counts the 1x1 convolution after the trunk to it, which is of the head here."""
    import timm

    with torch.device("meta"):
        theirs = timm.create_model(name, features_only=True, out_indices=(0, 1, 2, 3)).eval()
        model = FBNet(ARCHS[name].with_symmetric_padding())
        ours = FBNetFeatures(model, (0, 1, 2, 3)).eval()
        images = torch.empty(2, 3, 256, 256)
        assert [x.shape for x in ours(images)] == [x.shape for x in theirs(images)]
        assert model.head_hidden_size == timm.create_model(name).head_hidden_size
    assert ours.feature_info.channels() == theirs.feature_info.channels()
    assert ours.feature_info.reduction() == theirs.feature_info.reduction()


@pytest.mark.parametrize("indices", [None, (0,), (0, 1), (-1, 0)])
@torch.inference_mode()
def test_features_only(tiny_arch: Arch, indices: tuple[int, ...] | None) -> None:
    generator = torch.Generator().manual_seed
    model = create(tiny_arch, generator=generator(0)).eval()
    backbone = create(tiny_arch, features_only=True, out_indices=indices, generator=generator(0)).eval()
    images = _images(tiny_arch)
    maps, infos = list(model.feature_maps(images).values()), list(model.feature_info)
    positions = range(len(maps)) if indices is None else indices
    for x, y in zip(backbone(images), [maps[position] for position in positions], strict=True):
        assert torch.equal(x, y)
    assert list(backbone.feature_info) == [infos[position] for position in positions]
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in backbone.state_dict().items())


def test_blocks_that_no_map_depends_on_are_left_out(tiny_arch: Arch) -> None:
    backbone = create(tiny_arch, features_only=True, out_indices=(0,))
    sum(x.sum() for x in backbone(_images(tiny_arch))).backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    assert len(backbone.state_dict()) < len(create(tiny_arch, features_only=True).state_dict())


def test_features_can_be_exported(tiny_arch: Arch) -> None:
    backbone = create(tiny_arch, features_only=True).eval()
    exported = torch.export.export(backbone, (_images(tiny_arch),)).module()
    for x, y in zip(exported(_images(tiny_arch)), backbone(_images(tiny_arch)), strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out_indices": (1,)}, "out_indices selects feature maps; add features_only=True"),
        ({"features_only": True, "out_indices": (9,)}, "out_indices has 9; tiny has maps 0 to "),
        ({"features_only": True, "out_indices": ("stride2",)}, "out_indices has 'stride2'; tiny has maps 0 to "),
        ({"features_only": True, "out_indices": ()}, "out_indices is empty; name at least one map"),
    ],
)
def test_wrong_indices(tiny_arch: Arch, options: dict[str, object], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        create(tiny_arch, **options)  # type: ignore[call-overload]


def test_torch_hub_loads_from_a_checkout() -> None:
    root = Path(fbnetv3_zoo.__file__).parents[1]
    model = torch.hub.load(root, "fbnetv3_a", source="local", num_classes=5)
    assert (model.arch.name, model.num_classes) == ("fbnetv3_a", 5)

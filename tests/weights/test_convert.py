"""Official checkpoints: their logits, under this project's names, and what is refused."""

from __future__ import annotations

import pytest
import torch
from golden import (
    GOLDEN,
    expected_logits,
    facts,
    golden_input,
    official_checkpoint,
    official_state_dict,
)
from reference import Weights, reference_logits
from sweeps import every
from torch import Tensor

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.weights.convert import from_official
from fbnetv3_zoo.zoo import ARCHS

STEM = "backbone.stages.xif0_0.conv.weight"


def _converted(name: str, official: dict[str, Tensor]) -> FBNet:
    with torch.device("meta"):
        model = FBNet(ARCHS[name])
    model.load_state_dict(from_official(model.arch, official), assign=True)
    return model.eval()


@pytest.mark.parametrize("name", GOLDEN)
@torch.inference_mode()
def test_logits_are_the_official_ones(name: str) -> None:
    logits = _converted(name, official_state_dict(name))(golden_input(name))
    torch.testing.assert_close(logits, expected_logits(name), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_whole_checkpoint_gives_its_averaged_weights(name: str) -> None:
    checkpoint, averaged = official_checkpoint(name), from_official(ARCHS[name], official_state_dict(name))
    loaded = from_official(ARCHS[name], checkpoint)
    assert list(loaded) == list(averaged)
    assert all(torch.equal(loaded[key], averaged[key]) for key in averaged)
    raw = from_official(ARCHS[name], checkpoint["state_dict"])
    assert not torch.equal(raw["stages.0.0.conv.weight"], loaded["stages.0.0.conv.weight"])


def test_a_checkpoint_without_average_gives_its_raw_weights() -> None:
    name = "fbnetv2_f1"
    checkpoint = official_checkpoint(name) | {"model_ema": None}
    loaded = from_official(ARCHS[name], checkpoint)
    assert torch.equal(loaded["stages.0.0.conv.weight"], official_state_dict(name, "raw:")[STEM])


@pytest.mark.parametrize("name", GOLDEN)
@torch.inference_mode()
def test_reference_is_proved_by_the_golden_records(name: str) -> None:
    weights = Weights(official_state_dict(name))
    given = set(weights)
    logits = reference_logits(facts()[name], golden_input(name), weights)
    assert set(weights) == given
    torch.testing.assert_close(logits, expected_logits(name), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", every(facts(), "fbnetv3_a", "fbnetv2_f1", "fbnet_a"))
@torch.inference_mode()
def test_logits_are_the_reference_with_a_live_signal(name: str) -> None:
    weights = Weights()
    images = torch.randn(2, 3, 97, 97, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    expected = reference_logits(facts()[name], images, weights)
    assert (expected[0] - expected[1]).std() > 0.1 * expected.std()  # the logits do depend on the image
    logits = _converted(name, weights)(images)
    torch.testing.assert_close(logits, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", GOLDEN)
def test_converted_names_are_the_modules(name: str) -> None:
    arch = ARCHS[name]
    with torch.device("meta"):
        expected = FBNet(arch).state_dict()
    assert from_official(arch, official_state_dict(name)).keys() == expected.keys()


def test_missing_and_left_over_keys_are_named() -> None:
    official = official_state_dict("fbnetv2_f1")
    official["head.conv.scale"] = official.pop("head.conv.bias")
    with pytest.raises(ZooError) as caught:
        from_official(ARCHS["fbnetv2_f1"], official)
    faults = "1 missing (head.conv.bias); 1 left over (head.conv.scale)"
    assert str(caught.value) == f"state dict does not fit fbnetv2_f1 in official layout: {faults}"


def test_another_networks_keys_are_counted() -> None:
    official, arch = official_state_dict("fbnetv2_f1"), ARCHS["fbnetv2_f1"]
    kept = {key: value for key, value in official.items() if "xif5" not in key}
    gone = sorted(official.keys() - kept.keys())
    with pytest.raises(ZooError) as caught:
        from_official(arch, kept)
    listed = f"{', '.join(gone[:3])} and {len(gone) - 3} more"
    assert str(caught.value) == f"state dict does not fit fbnetv2_f1 in official layout: {len(gone)} missing ({listed})"


def test_a_tensor_of_the_wrong_shape_is_named() -> None:
    official = official_state_dict("fbnetv2_f1")
    official[STEM] = official[STEM][:, :1]
    with pytest.raises(ZooError, match=STEM):
        from_official(ARCHS["fbnetv2_f1"], official)

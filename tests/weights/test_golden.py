"""The stand-in checkpoints themselves: a generator that drifts would prove nothing."""

from __future__ import annotations

import pytest
import torch
from golden import GOLDEN, expected_logits, golden_input, official_checkpoint, official_state_dict


def test_values_are_the_recorded_ones() -> None:
    state = official_state_dict("fbnetv2_f1")
    drawn = [state[f"backbone.stages.xif0_0.{key}"].flatten()[0] for key in ("conv.weight", "bn.running_var")]
    assert len(state) == 288
    torch.testing.assert_close(torch.stack(drawn), torch.tensor([0.1996149868, 1.1141630411]))


@pytest.mark.parametrize("name", GOLDEN)
def test_records_can_tell_networks_apart(name: str) -> None:
    logits = expected_logits(name)
    assert logits.shape == (2, 1000)
    assert logits.std() > 0.1  # ten thousand times the tolerance of the comparison
    assert golden_input(name).shape[:2] == (2, 3)


def test_raw_weights_of_a_checkpoint_are_others() -> None:
    checkpoint = official_checkpoint("fbnetv2_f1")
    key = "module.backbone.stages.xif0_0.conv.weight"
    assert not torch.equal(checkpoint["state_dict"][key], checkpoint["model_ema"][key])

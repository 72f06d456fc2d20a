"""How a run is carried out: what is refused."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from refusals import refusal

from fbnetv3_zoo.recipes import SGD, Recipe
from fbnetv3_zoo.training.distributed import World, usable
from fbnetv3_zoo.training.engine import Engine
from fbnetv3_zoo.training.execution import Execution, OnBadImage, Precision

COUNT, FLAG = "a whole number of at least 0", "True or False"
REFUSED: list[tuple[str, object, str]] = [
    ("device", 0, "text, such as 'cpu' or 'cuda'"),
    ("device", None, "text, such as 'cpu' or 'cuda'"),
    ("workers", -1, COUNT),
    ("workers", 1.0, COUNT),
    ("workers", True, COUNT),
    ("precision", "bf16", "Precision.FLOAT32, Precision.BFLOAT16 or Precision.FLOAT16"),
    ("compile", 1, FLAG),
    ("channels_last", "no", FLAG),
    ("gradient_checkpointing", None, FLAG),
    ("accumulation", 0, "a whole number of at least 1"),
    ("checkpoint_steps", -1, COUNT),
    ("checkpoint_minutes", -0.5, "a number at least 0"),
    ("checkpoint_minutes", float("nan"), "a number at least 0"),
    ("keep_checkpoints", 0, "a whole number of at least 1"),
    ("on_bad_image", "skip", "OnBadImage.RAISE or OnBadImage.SKIP"),
    ("check_images", 1, FLAG),
    ("threads", -1, "a whole number of at least 0"),
]


@pytest.mark.parametrize(("field", "value", "remedy"), REFUSED)
def test_wrong_values_are_refused(field: str, value: object, remedy: str) -> None:
    told = refusal(lambda: replace(Execution(), **{field: value}))  # type: ignore[arg-type]
    assert told == f"Execution.{field} is {value!r}; it must be {remedy}"


def test_every_field_can_be_refused() -> None:
    assert {field for field, *_ in REFUSED} == {field.name for field in fields(Execution)}


@pytest.mark.parametrize("channels_last", [None, True, False])
@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("on_bad_image", OnBadImage)
def test_every_choice_is_taken(channels_last: bool | None, precision: Precision, on_bad_image: OnBadImage) -> None:
    found = Execution(
        device="cuda:1", workers=3, precision=precision, compile=True, channels_last=channels_last, accumulation=4,
        checkpoint_steps=100, checkpoint_minutes=2.5, keep_checkpoints=1, on_bad_image=on_bad_image,
    )  # fmt: skip
    assert (found.channels_last, found.precision, found.on_bad_image) == (channels_last, precision, on_bad_image)


def test_the_current_gpu_gets_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with GPUs: tensors have the number of their GPU, and set_device() refuses one without."""
    zeros, current = torch.zeros, []

    class OnGpu:
        device = torch.device("cuda:1")

        def item(self) -> float:
            return 0.0

    monkeypatch.setattr(torch, "zeros", lambda *size, device: OnGpu() if device.type == "cuda" else zeros(*size))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: current.append(device.index + 0))
    assert usable("cuda") == torch.device("cuda:1")
    assert current == [1]
    assert usable("cpu") == torch.device("cpu")
    assert current == [1]


class _Counting(Engine[Any, int]):
    def measure_epoch(self) -> None:
        raise NotImplementedError

    def finish(self) -> int:
        return torch.get_num_threads()


@pytest.mark.parametrize("threads", [0, 3])
def test_every_kind_of_run_computes_on_its_threads(threads: int) -> None:
    """Supernets, detectors and candidates, too: 0 leaves what PyTorch, or the executor of a search, has set."""
    before, batches = torch.get_num_threads(), None
    run = _Counting(
        Recipe(1, 2, SGD(), 0.1), batches, None,  # type: ignore[arg-type]
        execution=Execution(threads=threads), world=World(), epochs=0,
    )  # fmt: skip
    assert run.run() == (threads or before)
    assert torch.get_num_threads() == before

"""What TensorBoard's own reader finds in what a run wrote for it; which callbacks are refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from refusals import refusal
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fbnetv3_zoo.training import Callback, Epoch, Step
from fbnetv3_zoo.training.callbacks import check_callbacks
from fbnetv3_zoo.training.tensorboard_writer import TensorBoard

STEPS = 5


def _steps(board: TensorBoard, epoch: int, first: int, last: int, loss: float) -> None:
    for step in range(first, last + 1):
        board.on_step(Step(epoch, step, STEPS, loss + step, 0.1 * epoch, 100.0 * step))


def _ended(board: TensorBoard, epoch: int) -> None:
    board.on_epoch(Epoch(epoch, 0.1, 1.5 * epoch, 2.5 * epoch, 0.25 * epoch, epoch, 9.0, 61.0))


def _read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def _series(found: EventAccumulator, name: str) -> list[tuple[int, float]]:
    return [(event.step, pytest.approx(event.value)) for event in found.Scalars(name)]


def test_an_epoch(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path / "tensorboard")
    assert not (tmp_path / "tensorboard").exists()  # before there is anything to write
    _steps(board, 1, 1, STEPS, 0.5)
    _ended(board, 1)
    found = _read(tmp_path / "tensorboard")
    assert _series(found, "step/loss") == [(n, 0.5 + n) for n in range(1, 6)]
    assert _series(found, "step/learning_rate") == [(n, 0.1) for n in range(1, 6)]
    assert _series(found, "step/images_per_second") == [(n, 100 * n) for n in range(1, 6)]
    assert _series(found, "epoch/train_loss") == [(1, 1.5)]
    assert _series(found, "epoch/validation_loss") == [(1, 2.5)]
    assert _series(found, "epoch/validation_top1") == [(1, 0.25)]
    assert _series(found, "epoch/skipped") == [(1, 1)]
    assert len(found.Tags()["scalars"]) == 7


def _begun(folder: Path, last: int) -> None:
    """A run that is killed after step ``last`` of its second epoch."""
    board = TensorBoard(folder)
    _steps(board, 1, 1, STEPS, 0.0)
    _ended(board, 1)
    _steps(board, 2, 1, last, 0.0)
    board._opened(None).flush()


def test_what_came_after_the_checkpoint_is_replaced(tmp_path: Path) -> None:
    _begun(tmp_path, 4)
    board = TensorBoard(tmp_path)
    _steps(board, 2, 3, STEPS, 50.0)
    _ended(board, 2)
    found = _read(tmp_path)
    first = [*((n, n) for n in range(1, 6)), (6, 1), (7, 2)]
    assert _series(found, "step/loss") == [*first, (8, 53), (9, 54), (10, 55)]
    assert _series(found, "epoch/train_loss") == [(1, 1.5), (2, 3.0)]


def test_nothing_is_replaced_where_only_the_validation_was_left(tmp_path: Path) -> None:
    _begun(tmp_path, STEPS)
    board = TensorBoard(tmp_path)
    _ended(board, 2)
    _steps(board, 3, 1, 2, 7.0)
    _ended(board, 3)
    found = _read(tmp_path)
    assert [step for step, _ in _series(found, "step/loss")] == list(range(1, 13))
    assert _series(found, "epoch/validation_top1") == [(1, 0.25), (2, 0.5), (3, 0.75)]


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    expected = "TensorBoard is not installed; pip install 'fbnetv3-zoo[tensorboard]'"
    assert refusal(lambda: TensorBoard(tmp_path)) == expected


class Lacking(Callback):
    def on_epoch(self) -> None:  # type: ignore[override]
        """Takes too little."""


class Demanding(Callback):
    def on_resume(self, epochs: int, steps: int, checkpoint: Path, folder: Path) -> None:  # type: ignore[override]
        """Takes too much."""


class Misspelled(Callback):
    def on_epoch_end(self, epoch: Any) -> None:
        """Is never called."""


class Wide(Callback):
    on_anything = "no method"

    def on_epoch(self, *all_of_it: Any, **more: Any) -> None:
        """Takes anything."""

    @staticmethod
    def on_step(step: Step, verbose: bool = False) -> None:  # type: ignore[override]
        """Takes what it is given."""


KIND = "instances of fbnetv3_zoo.training.Callback"


@pytest.mark.parametrize(
    ("callbacks", "said"),
    [
        (None, f"callbacks is None; it must be a list of {KIND}"),
        (Wide(), f"callbacks is of type Wide; it must be a list of {KIND}"),
        (Wide, f"callbacks is the class Wide; it must be a list of {KIND}"),
        ("all", f"callbacks is 'all'; it must be a list of {KIND}"),
        ([Wide(), Wide], f"callbacks[1] is the class Wide; callbacks must be {KIND}, such as Wide()"),
        ([print], f"callbacks[0] is the function print; callbacks must be {KIND}"),
        ([object()], f"callbacks[0] is of type object; callbacks must be {KIND}"),
        ([Lacking()], "callbacks[0]: Lacking.on_epoch cannot be called; define it as on_epoch(self, epoch)"),
        ([Demanding()],
         "callbacks[0]: Demanding.on_resume cannot be called; define it as on_resume(self, epochs, steps, checkpoint)"),
        ([Misspelled()],
         "callbacks[0]: Misspelled.on_epoch_end is never called (did you mean 'on_epoch'?); there are on_look, "
         "on_resume, on_step, on_epoch"),
    ],
)  # fmt: skip
def test_callbacks_that_cannot_be_called(callbacks: Any, said: str) -> None:
    assert refusal(lambda: check_callbacks(callbacks)) == said


def test_callbacks_that_can_be_called(tmp_path: Path) -> None:
    check_callbacks([Callback(), Wide(), TensorBoard(tmp_path)])
    check_callbacks(())

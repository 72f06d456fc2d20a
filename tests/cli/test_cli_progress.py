"""What a run tells of its time: how long is left, and where a resumed one goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import PLAIN, checkpoints, few_digits, train

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.cli.progress import TimeLeft, TrainingProgress
from fbnetv3_zoo.training import Epoch, Step


def _step(epoch: int, number: int) -> Step:
    return Step(epoch, number, 100, 1.0, 0.1, 10.0)


def _epoch(number: int, seconds: float) -> Epoch:
    return Epoch(number, 0.1, 1.0, 1.0, 0.5, 0, 10.0, seconds)


def test_a_long_first_epoch_tells_the_time_before_it_ends() -> None:
    left = TimeLeft(20)
    told = [left.after_step(_step(1, n), 1000 + 6.0 * n) for n in range(1, 14)]
    line = "about 3 h 18 min left in this run: validation and 1,989 steps of 6 s"
    assert told == [[]] * 10 + [[line]] + [[]] * 2
    assert left.after_epoch(1, 630.0) == ["about 3 h 19 min left in this run: 19 epochs of 10 min 30 s"]
    assert left.after_epoch(2, 630.0) == []


def test_a_short_run_is_not_estimated() -> None:
    left = TimeLeft(5)
    assert [left.after_step(_step(1, n), 0.01 * n) for n in range(1, 101)] == [[]] * 100
    assert left.after_epoch(1, 14.9) == []


def test_the_last_epoch_is_not_estimated() -> None:
    assert TimeLeft(1).after_epoch(1, 500.0) == []


def test_the_estimate_follows_the_first_line_and_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress(1_000_000, header=["header"]) as progress:
        progress.on_epoch(_epoch(8, 3599.6))
        progress.on_epoch(_epoch(9, 3599.6))
    header, first, left, second = capsys.readouterr().err.splitlines()
    assert (header, first[:11], second[:11]) == ("header", "epoch   8/1", "epoch   9/1")
    assert left == "about 999880 h 53 min left in this run: 999,992 epochs of 1 h 00 min"
    assert len(left) <= 80


def test_a_resumed_run_tells_where_it_goes_on(
    smallest_arch: Arch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told() -> list[str]:
        with TrainingProgress(PLAIN.epochs, header=["header"]) as progress:
            train(smallest_arch, few_digits(), PLAIN, tmp_path, resume=True, callbacks=[progress])
        return capsys.readouterr().err.splitlines()

    assert [line[:5] for line in told()] == ["heade", "epoch", "epoch"]
    last, first = checkpoints(tmp_path)
    assert told() == ["header", f"going on after epoch 2 of 2 ({last})"]
    last.unlink()
    header, line, *epochs = told()
    assert (header, line) == ("header", f"going on after epoch 1 of 2 ({first})")
    assert len(epochs) == 1


def test_a_run_that_stopped_within_an_epoch_tells_the_step(capsys: pytest.CaptureFixture[str]) -> None:
    TrainingProgress(20).on_resume(7, 1200, Path("runs/x.safetensors"))
    assert capsys.readouterr().err == "going on after step 1,200 of epoch 8 of 20 (runs/x.safetensors)\n"

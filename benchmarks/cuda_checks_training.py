"""The checks of ``cuda_check.py`` that train: precisions, compiled steps, several processes, resuming."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from cuda_checks_common import (
    ChildError,
    Row,
    Setting,
    arch_of,
    children,
    drawn_batch,
    full_float32,
    interleaved,
    learner_for,
    spread,
    step_of,
)

from fbnetv3_zoo.recipes import RECIPES
from fbnetv3_zoo.training import Dataset, Execution, Precision, Run, train
from fbnetv3_zoo.training.data import digits

WAYS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bf16": {"precision": Precision.BFLOAT16},
    "fp16": {"precision": Precision.FLOAT16},
    "float32, channels-last": {"channels_last": True},
    "fp16, 2 parts a batch": {"precision": Precision.FLOAT16, "accumulation": 2},
    "bf16, gradient checkpointing, 2 workers": {
        "precision": Precision.BFLOAT16, "gradient_checkpointing": True, "workers": 2,
    },
}  # fmt: skip
LOST = 0.03  # of the accuracy of float32
SAME = 1e-3  # of a loss
SIMILAR = 1e-2  # of the mean loss of an epoch: rounding adds up over a run
COMPILED = 0.05  # of a loss in bf16, where compiled code rounds elsewhere


def few(every: int) -> Dataset:
    """One of ``every`` digits."""
    data = digits()
    return replace(data, splits=MappingProxyType({split: tuple(data[split])[::every] for split in data.splits}))


def trained(setting: Setting, epochs: int, how: dict[str, Any]) -> Run:
    """A run on the digits with the recipe for them."""
    recipe, data = replace(RECIPES["digits"], epochs=epochs, warmup_epochs=1), few(12 if setting.quick else 1)
    with tempfile.TemporaryDirectory() as folder:
        execution = Execution(str(setting.device), **how)
        return train(arch_of("fbnetv3_nano"), data, recipe, Path(folder) / "run", execution=execution, report=False)


def precisions(setting: Setting) -> Iterator[Row]:
    """Test accuracy on the digits in every precision."""
    base = None
    for name, how in WAYS.items():
        run = trained(setting, 1 if setting.quick else 8, how)
        assert run.test is not None
        accuracy, speed = run.test.fraction, run.epochs[-1].images_per_second
        base = accuracy if base is None else base
        ok = None if setting.quick else accuracy >= base - LOST and accuracy > 0.8
        figures = {"accuracy": accuracy, "images_per_second": speed, "loss": run.test.loss}
        yield Row(f"digits, {name}", f"accuracy {accuracy:.1%}, {speed:,.0f} images/s", ok, figures)
        setting.free()


def compiled(setting: Setting) -> Iterator[Row]:
    """Losses and speed of compiled steps."""
    size = 16 if setting.quick else 256
    for precision, limit in ((Precision.FLOAT32, SAME), (Precision.BFLOAT16, COMPILED)):
        arch = arch_of("fbnetv3_nano", num_classes=10)
        with full_float32():
            steps = [
                step_of(learner_for(setting, arch, precision=precision, compile=way), drawn_batch(setting, arch, size))
                for way in (False, True)
            ]
            losses = [[step() for _ in range(5)] for step in steps]
            plain, faster = (spread(times)[1] for times in interleaved(setting, steps))
        apart = max(abs(one - other) / one for one, other in zip(*losses, strict=True))
        text = f"losses {apart:.1e} apart; {1 / plain:.1f} steps/s, compiled {1 / faster:.1f}"
        figures = {"apart": apart, "losses": losses, "steps_per_second": [1 / plain, 1 / faster]}
        yield Row(f"fbnetv3_nano, {precision.value}, batch {size}", text, apart <= limit, figures)
        torch._dynamo.reset()
        setting.free()
        if setting.quick:
            return


def resume(setting: Setting) -> Iterator[Row]:
    """A run that is stopped in the middle of an epoch and resumed, against one that is not."""
    precisions = ("float32", "bf16")
    shared = {"do": "resume", "device": setting.device.type, "quick": setting.quick}
    jobs = [{**shared, "precision": precision} for precision in precisions]
    for precision, found in zip(precisions, children(jobs, 150, CUBLAS_WORKSPACE_CONFIG=":4096:8"), strict=True):
        again, stopped = found["again"], found["resumed"]
        text = f"{found['tensors']} tensors; different: {again} when repeated, {stopped} when stopped and resumed"
        yield Row(f"RMSProp, average, dropout, mixup; {precision}", text, not again and not stopped, found)


def _port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def world_of(setting: Setting, size: int, job: dict[str, Any]) -> list[Any]:
    """What ``size`` processes that form a world on this one device answer to ``job``."""
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _port(), "LOCAL_RANK": "0"}
    network = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    job = {**job, "device": f"{setting.device.type}:0" if setting.cuda else "cpu", "quick": setting.quick}
    jobs = [{**job, "environment": {"RANK": str(rank)}} for rank in range(size)]
    return children(jobs, 90, **shared, **network)


def synchronized_norms(setting: Setting) -> Iterator[Row]:
    """Batch norm over the halves of a batch in two processes on one GPU (gloo), against the whole batch in one."""
    if not setting.cuda:
        yield Row("SyncBatchNorm, two processes", "not possible on a CPU: PyTorch's is for GPUs")
    else:
        try:
            found = world_of(setting, 2, {"do": "norms"})[0]
        except ChildError as error:
            yield Row("SyncBatchNorm, two processes on one GPU (gloo)", f"not possible: {error}", False)
        else:
            text = f"statistics {found['statistics']:.1e} apart, gradients {found['gradients']:.1e}, logits "
            text += f"{found['logits']:.1e}; with norms of their own, statistics {found['alone']:.1e}"
            ok = max(found["statistics"], found["gradients"], found["logits"]) < 1e-9 < found["alone"]
            yield Row("SyncBatchNorm, float64, two processes on one GPU (gloo)", text, ok, found)
    yield from _whole_runs(setting)


def _whole_runs(setting: Setting) -> Iterator[Row]:
    job, backend = {"do": "world"}, "NCCL" if setting.cuda else "gloo"
    (alone,) = children([{**job, "device": setting.device.type, "quick": setting.quick}], 90)
    (one,) = world_of(setting, 1, job)
    apart = max(abs(a - b) / a for a, b in zip(alone["losses"], one["losses"], strict=True))
    figures = {"alone": alone, "world": one, "apart": apart}
    yield Row(f"a run in a world of one process ({backend})", f"losses {apart:.1e} apart", apart <= SIMILAR, figures)
    two = world_of(setting, 2, job)[0]
    apart = max(abs(a - b) / a for a, b in zip(alone["losses"], two["losses"], strict=True))
    text = f"losses {apart:.1e} apart; accuracy {two['accuracy']:.1%}, of one process {alone['accuracy']:.1%}"
    ok = apart <= SIMILAR if setting.cuda else None  # on CPUs norms are not synchronized
    yield Row("a run in two processes on one device (gloo)", text, ok, {"alone": alone, "world": two, "apart": apart})

"""What other processes do for ``cuda_check.py``: one job, given as JSON, whose answer is printed as JSON."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cuda_checks_setup  # noqa: F401 -- first, since it makes the package importable
import torch
import torch.distributed as dist
import torch.nn.functional as F
from cuda_checks_common import Setting, arch_of, drawn_batch, full_float32, largest_difference, learner_for, step_of
from cuda_checks_training import few
from safetensors.torch import load_file
from torch import Tensor

from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.recipes import SGD, Augmentation, Recipe, RMSProp
from fbnetv3_zoo.search.space import Candidate
from fbnetv3_zoo.training import Callback, Execution, Precision, Step, train
from fbnetv3_zoo.training.checkpoint import Checkpoints
from fbnetv3_zoo.training.distributed import World, usable
from fbnetv3_zoo.training.learner import synchronized

Job = dict[str, Any]
RANDOM = Recipe(
    4,
    64,
    RMSProp(),
    0.004,
    Augmentation(shift=True, mixup=0.2),
    warmup_epochs=1,
    weight_decay=1e-3,
    clip_norm=5.0,
    ema_decay=0.8,
    label_smoothing=0.1,
    dropout=0.2,
    stochastic_depth=0.2,
)
PLAIN = Recipe(3, 64, SGD(), 0.05, warmup_epochs=1, weight_decay=1e-3)


class Stopped(Exception):  # noqa: N818 -- nothing is wrong
    """What ends a run in the middle of an epoch."""


class Stopper(Callback):
    def on_step(self, step: Step) -> None:
        if (step.epoch, step.step) == (3, 2):
            raise Stopped


def resume(job: Job) -> dict[str, Any]:
    """Train twice without a stop and once with one; the numbers of tensors that are not equal to the bit."""
    torch.use_deterministic_algorithms(True)
    data, arch = few(12 if job["quick"] else 2), arch_of("fbnetv3_nano")
    recipe = replace(RANDOM, batch_size=16) if job["quick"] else RANDOM
    execution = Execution(job["device"], precision=Precision(job["precision"]), checkpoint_steps=2)

    def run(folder: Path, callbacks: Sequence[Callback] = (), resume: bool = False) -> dict[str, Tensor]:
        train(arch, data, recipe, folder, resume=resume, execution=execution, callbacks=callbacks, report=False)
        newest = Checkpoints(folder / "checkpoints", keep=1).paths()[0]
        return {
            f"{file.stem[:5]}.{k}": v
            for file in (folder / "model.safetensors", newest)
            for k, v in load_file(file).items()
        }

    with tempfile.TemporaryDirectory() as folder:
        first, second = run(Path(folder) / "1"), run(Path(folder) / "2")
        try:
            run(Path(folder) / "3", [Stopper()])
        except Stopped:
            third = run(Path(folder) / "3", resume=True)
    again, resumed = (sum(not torch.equal(first[k], other[k]) for k in first) for other in (second, third))
    return {"tensors": len(first), "again": again, "resumed": resumed}


def norms(job: Job) -> dict[str, Any]:
    """Half a batch in each of two processes with synchronized norms, and the whole one in this process alone."""
    device, rank = usable(job["device"]), int(os.environ["RANK"])
    dist.init_process_group("gloo")
    generator = torch.Generator().manual_seed(3)
    images = torch.randn((16, 3, 32, 32), generator=generator, dtype=torch.float64).to(device)
    labels = torch.randint(0, 10, (16,), generator=generator).to(device)
    half = slice(8 * rank, 8 * rank + 8)

    def passed(world: World, part: slice) -> tuple[Tensor, FBNet]:
        drawn = FBNet(arch_of("fbnetv3_nano", num_classes=10), generator=torch.Generator().manual_seed(0))
        network = synchronized(drawn.double().to(device), world)
        logits = network(images[part])
        F.cross_entropy(logits, labels[part]).backward()  # type: ignore[no-untyped-call]
        return logits.detach(), network

    logits, network = passed(World(rank, 2, device), half)
    expected, whole = passed(World(0, 1, device), slice(None))
    _, alone = passed(World(0, 1, device), half)
    pairs = zip(network.named_parameters(), whole.named_parameters(), strict=True)
    apart = []
    for (_, one), (_, other) in pairs:
        assert one.grad is not None
        assert other.grad is not None
        summed = one.grad.contiguous()
        dist.all_reduce(summed)
        apart.append(float((summed / 2 - other.grad).abs().max()))
    buffers = dict(whole.named_buffers())
    answer = {
        "statistics": largest_difference(dict(network.named_buffers()), buffers),
        "alone": largest_difference(dict(alone.named_buffers()), buffers),
        "gradients": max(apart), "logits": float((logits - expected[half]).abs().max()),
    }  # fmt: skip
    dist.barrier()
    dist.destroy_process_group()
    return answer


def world(job: Job) -> dict[str, Any]:
    """A run of the project's trainer; where two processes share a device, over gloo, since NCCL refuses that."""
    if os.environ.get("WORLD_SIZE") == "2":
        dist.init_process_group("gloo")
    recipe = replace(PLAIN, batch_size=16, epochs=1) if job["quick"] else PLAIN
    with full_float32(), tempfile.TemporaryDirectory() as own:
        folders = [own]
        if dist.is_initialized():
            dist.broadcast_object_list(folders, src=0)
        run = train(
            arch_of("fbnetv3_nano"), few(12 if job["quick"] else 2), recipe, Path(folders[0]) / "run",
            execution=Execution(job["device"]), report=False,
        )  # fmt: skip
        if dist.is_initialized():
            dist.barrier()
    assert run.test is not None
    return {"losses": [epoch.train_loss for epoch in run.epochs], "accuracy": run.test.fraction}


@dataclass(frozen=True)
class Throughput:
    """Images per second of training steps in ``seconds``, which begin once as many processes as ``number`` are ready.

    An evaluator, so that an executor of the project can run it.
    """

    device: str
    name: str
    batch: int
    folder: str
    number: int
    seconds: float

    def __call__(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        setting = Setting(usable(self.device), False, 0.0)
        arch = arch_of(self.name)
        precision = Precision.BFLOAT16 if setting.cuda else Precision.FLOAT32
        step = step_of(learner_for(setting, arch, precision=precision), drawn_batch(setting, arch, self.batch))
        for _ in range(3):
            step()
        setting.synchronize()
        (Path(self.folder) / f"ready-{os.getpid()}").touch()
        while len(list(Path(self.folder).glob("ready-*"))) < self.number:
            time.sleep(0.01)
        began, steps = time.monotonic(), 0
        while time.monotonic() < began + self.seconds:
            step()  # its loss is read, which waits for the device
            steps += 1
        setting.synchronize()
        return [self.batch * steps / (time.monotonic() - began)]


def throughput(job: Job) -> dict[str, Any]:
    measure = Throughput(job["device"], job["name"], job["batch"], job["folder"], job["number"], job["seconds"])
    return {"images_per_second": measure(Candidate("step", {}), 1)[0]}


JOBS = {"resume": resume, "norms": norms, "world": world, "throughput": throughput}

if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    torch.set_num_threads(1 if order["device"].startswith("cpu") else 4)
    print("\nANSWER " + json.dumps(JOBS[order["do"]](order)), flush=True)

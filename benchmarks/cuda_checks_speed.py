"""The checks of ``cuda_check.py`` that measure memory and time."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import timm
import torch
import torch.nn.functional as F
from cuda_checks_common import (
    Row,
    Setting,
    arch_of,
    children,
    drawn_batch,
    interleaved,
    learner_for,
    spread,
    step_of,
    timed,
)
from torch import Tensor, nn

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.arch.cost import arch_cost
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.training import Precision

Work = Callable[[], object]


def memory(setting: Setting) -> Iterator[Row]:
    """Peak memory of a training step, and what autograd keeps for its backward pass."""
    names, size = (("fbnetv3_nano",), 8) if setting.quick else (("fbnetv3_b", "fbnetv3_e"), 64)
    for name in names:
        for precision in (Precision.FLOAT32, Precision.BFLOAT16):
            yield _memory(setting, name, size, precision, False)
    yield _memory(setting, names[0], size, Precision.BFLOAT16, True)


def _memory(setting: Setting, name: str, size: int, precision: Precision, checkpointing: bool) -> Row:
    arch = arch_of(name)
    learner = learner_for(setting, arch, precision=precision, gradient_checkpointing=checkpointing)
    step, owned = step_of(learner, drawn_batch(setting, arch, size)), list(learner.student.parameters())
    step()
    held = {tensor.untyped_storage().data_ptr() for tensor in [*owned, *learner.student.buffers()]}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    figures: dict[str, Any] = {"batch": size, "side": arch.resolution, "precision": precision.value}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        learner.gradients([drawn_batch(setting, arch, size)], seed=0)
    figures["saved"] = sum(saved.values())
    text = f"kept for the backward pass {figures['saved'] / 2**20:,.0f} MiB"
    if setting.cuda:
        learner.optimizer.zero_grad()
        setting.free()
        torch.cuda.reset_peak_memory_stats()
        figures["before"] = torch.cuda.memory_allocated()
        step()
        figures |= {"peak": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
        text = f"peak {figures['peak'] / 2**20:,.0f} MiB, before {figures['before'] / 2**20:,.0f} MiB; {text}"
    del learner, step, owned
    setting.free()
    how = ", gradient checkpointing" if checkpointing else ""
    return Row(f"{name}, {precision.value}, batch {size}, {arch.resolution} px{how}", text, None, figures)


def _autocast(setting: Setting) -> AbstractContextManager[None]:
    return torch.autocast(setting.device.type, torch.bfloat16)


class Subject:
    """A network, ours or timm's, in channels-last, with images to train on and to classify."""

    def __init__(self, setting: Setting, network: nn.Module, images: Tensor, *, compiled: bool = False) -> None:
        self.setting, self.images = setting, images
        self.network = network.to(setting.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.labels = torch.arange(len(images), device=setting.device) % 1000
        self.optimizer = torch.optim.SGD(network.parameters(), 1e-4, momentum=0.9)
        if compiled:
            network.compile()

    def train(self) -> None:
        self.network.train()
        with _autocast(self.setting):
            logits = self.network(self.images)
        self.optimizer.zero_grad()
        F.cross_entropy(logits.float(), self.labels).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def infer(self) -> None:
        self.network.eval()
        with torch.inference_mode(), _autocast(self.setting):
            self.network(self.images)


def subjects(setting: Setting, name: str, size: int, *, peer: bool, compiled: bool = False) -> list[Subject]:
    """Our network ``name``, and timm's if ``peer``."""
    arch = arch_of(name, 64 if setting.quick else None).with_symmetric_padding()
    images = torch.randn(size, 3, arch.resolution, arch.resolution, device=setting.device)
    images = images.contiguous(memory_format=torch.channels_last)
    networks: list[nn.Module] = [FBNet(arch, generator=torch.Generator().manual_seed(0))]
    if peer:
        networks.append(timm.create_model(name))
    return [Subject(setting, network, images, compiled=compiled) for network in networks]


def _compared(what: str, size: int, times: Sequence[Sequence[float]]) -> Row:
    """Ours, against timm's where that was timed."""
    middles = [spread(part)[1] for part in times]
    figures: dict[str, Any] = {"batch": size, "seconds": [list(part) for part in times]}
    low, middle, high = spread(times[0])
    text = f"{1e3 * middle:.1f} ms ({1e3 * low:.1f} to {1e3 * high:.1f}), {size / middle:,.0f} images/s"
    if len(times) > 1:
        low, ratio, high = spread([ours / theirs for ours, theirs in zip(*times, strict=True)])
        text += f"; timm {1e3 * middles[1]:.1f} ms, {size / middles[1]:,.0f} images/s; "
        text += f"ours / timm {ratio:.2f} ({low:.2f} to {high:.2f})"
        figures["ratio"] = [low, ratio, high]
    return Row(what, text, None, figures)


def against_timm(setting: Setting) -> Iterator[Row]:
    """Training steps and inference in bf16, channels-last, beside timm's networks of the same names."""
    size = 4 if setting.quick else 128
    for name in ("fbnetv3_b",) if setting.quick else ("fbnetv3_b", "fbnetv3_g", "fbnetv3_d", "fbnetv3_e"):
        found = subjects(setting, name, size, peer=name != "fbnetv3_e")
        side = found[0].images.shape[-1]
        times = interleaved(setting, [subject.train for subject in found])
        setting.known[name] = spread(times[0])[1]
        yield _compared(f"{name}, {side} px, training step", size, times)
        times = interleaved(setting, [subject.infer for subject in found], chunk=0.2)
        yield _compared(f"{name}, {side} px, inference", size, times)
        del found
        setting.free()


def compiled_against_timm(setting: Setting) -> Iterator[Row]:
    """The same, compiled."""
    size = 4 if setting.quick else 128
    name = "fbnetv3_nano" if setting.quick else "fbnetv3_b"  # timm has no nano, so that ours is compiled alone
    found = subjects(setting, name, size, peer=not setting.quick, compiled=True)
    times = interleaved(setting, [subject.train for subject in found])
    yield _compared(f"{name}, {found[0].images.shape[-1]} px, compiled training step", size, times)
    if setting.peak:
        arch = arch_of(name, found[0].images.shape[-1]).with_symmetric_padding()
        yield Row(f"{name}, compiled training step", *_share(setting, arch, size, spread(times[0])[1]))
    if setting.left() > 45:
        times = interleaved(setting, [subject.infer for subject in found], chunk=0.2)
        yield _compared(f"{name}, {found[0].images.shape[-1]} px, compiled inference", size, times)


def _share(setting: Setting, arch: Arch, size: int, seconds: float) -> tuple[str, None, dict[str, Any]]:
    """How fast a training step is, of which the backward pass is taken for two forward passes."""
    rate = 3 * 2 * arch_cost(arch).macs * size / seconds
    text = f"{rate / 1e12:.2f} TFLOP/s, {rate / setting.peak:.2%} of the peak (3 x 2 x MACs x batch)"
    return text, None, {"flops": rate, "share": rate / setting.peak}


def peak_share(setting: Setting) -> Iterator[Row]:
    """The share of the device's measured bf16 peak that training steps reach."""
    side = 256 if setting.quick else 8192
    one, other = (torch.randn(side, side, device=setting.device).bfloat16() for _ in range(2))
    timed(setting, lambda: one @ other, 3)
    setting.peak = peak = 2 * side**3 / timed(setting, lambda: one @ other, 10)
    yield Row(f"matrix product in bf16, {side} x {side} x {side}", f"{peak / 1e12:,.1f} TFLOP/s", None, {"peak": peak})
    size = 4 if setting.quick else 128
    for name, seconds in setting.known.items():
        arch = arch_of(name, 64 if setting.quick else None).with_symmetric_padding()
        yield Row(f"{name}, training step", *_share(setting, arch, size, seconds))


def optimizers(setting: Setting) -> Iterator[Row]:
    """A step of PyTorch's optimizers as the trainer builds them, and fused; the trainer's RMSProp has no fused form."""
    name = "fbnetv3_nano" if setting.quick else "fbnetv3_b"
    network = FBNet(arch_of(name)).to(setting.device)
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 1e-4)
    weights = list(network.parameters())
    kinds: dict[str, Callable[[bool], torch.optim.Optimizer]] = {
        "SGD": lambda fused: torch.optim.SGD(weights, 1e-4, momentum=0.9, fused=fused or None),
        "AdamW": lambda fused: torch.optim.AdamW(weights, 1e-4, fused=fused or None),
    }
    size = 4 if setting.quick else 32
    subject = subjects(setting, name, size, peer=False)[0]
    whole = spread(interleaved(setting, [subject.train], rounds=5)[0])[1]
    for kind, build in kinds.items():
        plain, fused = (spread(part)[1] for part in interleaved(setting, [build(False).step, build(True).step]))
        text = (
            f"{1e3 * plain:.2f} ms, fused {1e3 * fused:.2f} ms; a whole step takes {1e3 * whole:.1f} ms (batch {size})"
        )
        figures = {"plain": plain, "fused": fused, "step": whole}
        yield Row(f"{kind}, update of {name}", text, None, figures)


def two_at_once(setting: Setting) -> Iterator[Row]:
    """Images per second of two trainings at once, against one alone."""
    name, size, seconds = ("fbnetv3_nano", 8, 1.0) if setting.quick else ("fbnetv3_b", 64, 6.0)
    ray = _has_ray()

    def rates(number: int) -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            job = {"device": setting.device.type, "name": name, "batch": size, "seconds": seconds}
            job |= {"folder": folder, "number": number}
            if ray and number > 1:
                return _in_ray(setting, job, number)
            return [
                float(found["images_per_second"]) for found in children([{**job, "do": "throughput"}] * number, 100)
            ]

    (alone,), both = rates(1), rates(2)
    how = "tasks of Ray" if ray else "processes of their own (Ray is not installed)"
    text = f"{sum(both):,.0f} images/s together in two {how}, one alone {alone:,.0f}: x {sum(both) / alone:.2f}"
    yield Row(f"{name}, batch {size}, two trainings at once", text, None, {"alone": alone, "both": both, "ray": ray})


def _has_ray() -> bool:
    try:
        importlib.import_module("ray")
    except ImportError:
        return False
    return True


def _in_ray(setting: Setting, job: dict[str, Any], number: int) -> list[float]:
    from cuda_checks_child import Throughput

    from fbnetv3_zoo.search.evaluation import Limits, Task
    from fbnetv3_zoo.search.executors import RayExecutor
    from fbnetv3_zoo.search.space import Candidate

    measure = Throughput(**job)
    tasks = [Task(n, Candidate(f"training {n}", {"number": n}), 1) for n in range(number)]
    executor = RayExecutor(workers=number, gpus_per_task=1 / number if setting.cuda else 0, threads=1)
    outcomes = list(executor.run(measure, tasks, Limits(seconds=100, retries=0)))
    if failed := [outcome.reason for outcome in outcomes if outcome.failure]:
        raise RuntimeError(failed[0])
    return [outcome.curve[0] for outcome in outcomes]

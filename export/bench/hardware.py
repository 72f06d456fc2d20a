"""This machine: its processor and instruction sets, the versions of the runtimes, and its peak matrix speed."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version

from fbnetv3_zoo.utils.hardware import cores, cpu_info, processor_name

from ..timing.worker_process import BenchWorker, OpenRequest, WorkerError
from .results import Machine, Peak

RUNTIMES = ("fbnetv3-zoo", "torch", "onnxruntime", "openvino", "nncf", "executorch", "ncnn",
            "ai-edge-litert", "timm", "numpy")  # fmt: skip
SIDE, PRODUCTS = 1536, 10
"""Side of the matrices whose product measures the peak, and how often it is computed."""

# fmt: off
_INSTRUCTIONS = {
    # flag in /proc/cpuinfo: name, x86 first, then ARM
    "avx2": "AVX2", "fma": "FMA", "avx512f": "AVX-512", "avx_vnni": "AVX-VNNI", "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16", "avx512_fp16": "AVX-512 FP16", "amx_int8": "AMX INT8", "amx_bf16": "AMX BF16",
    "asimd": "Neon", "asimdhp": "Neon FP16", "asimddp": "Neon dot product", "i8mm": "I8MM", "bf16": "BF16",
    "sve": "SVE",
}
# fmt: on


def machine_here() -> Machine:
    """This machine and its installed runtimes."""
    return Machine(
        processor=processor_name(),
        instructions=instructions(cpu_info()),
        cores=cores(),
        memory=_memory(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        versions={"Python": platform.python_version(), **_versions()},
    )


def instructions(info: str) -> tuple[str, ...]:
    """The instruction sets that matter for networks, from the text of /proc/cpuinfo."""
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", info, re.MULTILINE)
    flags = set(match[1].split()) if match else set()
    return tuple(name for flag, name in _INSTRUCTIONS.items() if flag in flags)


def peak_of(threads: int) -> Peak | None:
    """The best speed of several PyTorch products of two square matrices; None if they failed."""
    try:
        worker = BenchWorker(OpenRequest("", "product", threads))
    except WorkerError:
        return None
    try:
        worker.begin(SIDE)
        seconds = min(worker.turn().seconds for _ in range(PRODUCTS))
    except WorkerError:
        return None
    finally:
        worker.end()
    return Peak(threads, 2 * SIDE**3 / seconds / 1e9)


def _versions() -> dict[str, str]:
    versions = {}
    for name in RUNTIMES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not available on every system
        return None

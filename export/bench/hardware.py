"""What machine this is: its processor, what that can do, the releases of what runs on it, how fast it multiplies."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version

from fbnetv3_zoo.utils.hardware import cpu_info, processor_name

from .backends import cores
from .results import Machine, Peak
from .worker_process import BenchWorker, OpenRequest, WorkerError

RUNTIMES = ("fbnetv3-zoo", "torch", "onnxruntime", "openvino", "nncf", "executorch", "timm", "numpy")
SIDE, PRODUCTS = 1536, 10
"""Of the product by which the peak is found, and how often it is taken."""

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
    """This machine, and the runtimes that are installed."""
    return Machine(
        processor=processor_name(),
        instructions=instructions(cpu_info()),
        cores=cores(),
        memory=_memory(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        versions={"Python": platform.python_version(), **_versions()},
    )


def instructions(info: str) -> tuple[str, ...]:
    """The instruction sets that matter for networks, named in the text of /proc/cpuinfo."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", info, re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    return tuple(name for flag, name in _INSTRUCTIONS.items() if flag in flags)


def peak_of(threads: int) -> Peak | None:
    """The best of some products of two square matrices, by PyTorch; None where that failed."""
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
    found = {}
    for name in RUNTIMES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on every system
        return None

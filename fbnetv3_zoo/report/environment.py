"""What machine this is and which releases run on it, for those who read a result later."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

import torch

from ..utils.hardware import cores, processor_name

PACKAGES = ("fbnetv3-zoo", "torch", "torchvision", "numpy", "pillow")


def describe_machine() -> dict[str, str]:
    """Processor, cores, memory, GPUs, operating system and releases, by name."""
    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return {
        "Processor": processor_name(),
        "Cores": str(cores()),
        "Memory": _memory(),
        **({"GPUs": ", ".join(gpus)} if gpus else {}),
        "System": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "torch": str(torch.__version__),  # says which build, too
    }


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on every system
        return "unknown"
    return f"{size / 2**30:.1f} GiB"

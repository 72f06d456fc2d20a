"""The GPUs of this machine, divided among the workers of a pool."""

from __future__ import annotations

import os

from fbnetv3_zoo.errors import ZooError, check_number

VISIBLE = "CUDA_VISIBLE_DEVICES"


def check_share(name: str, gpus: float) -> None:
    """Raise :class:`ZooError` unless ``gpus`` is a whole number or one over a whole number."""
    check_number(name, gpus, at_least=0)
    if (0 < gpus < 1 and abs(1 / gpus - round(1 / gpus)) > 1e-6) or (gpus > 1 and gpus != int(gpus)):
        raise ZooError(f"{name} is {gpus:g}; it must be a whole number of GPUs, or 1/2, 1/3, ... of one")


def divided(workers: int, gpus: float) -> list[str]:
    """What each of ``workers`` workers sees as CUDA_VISIBLE_DEVICES if it has ``gpus`` GPUs, or a share of one.

    Raises :class:`ZooError` if there are not enough.
    """
    known = _visible()
    each, sharing = max(1, int(gpus)), max(1, round(1 / gpus))
    places = [range(n // sharing * each, n // sharing * each + each) for n in range(workers)]
    if (needed := places[-1][-1] + 1) > len(known):
        raise ZooError(
            f"{workers} workers with {gpus:g} GPUs each need {needed} GPUs; {len(known)} are visible here: give fewer "
            "workers (--executor pool:N) or a smaller share (--gpus-per-candidate 0.5)"
        )
    return [",".join(known[place] for place in of_one) for of_one in places]


def room(gpus: float) -> int:
    """How many workers there are GPUs for, at least one."""
    return max(1, int(len(_visible()) / gpus + 1e-6))


def _visible() -> list[str]:
    """The GPUs that this process may use, as it would name them in the environment."""
    if (named := os.environ.get(VISIBLE)) is not None:
        return [name for name in named.split(",") if name and name != "-1"]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]

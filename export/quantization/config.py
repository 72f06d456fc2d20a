"""How a float file is quantized, and for which processors."""

from __future__ import annotations

import platform
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from fbnetv3_zoo.errors import check_flag, check_number, check_whole
from fbnetv3_zoo.utils.hardware import cpu_info

from .qdq import Activations


class Target(Enum):
    """The processors for which an int8 file is written; they differ in the range of integers."""

    AVX2 = "avx2"
    """x86 without VNNI: 7-bit weights, since two products are added in 16 bits, which 8 bits would overflow."""

    VNNI = "vnni"
    """x86 with AVX-512 VNNI or AVX-VNNI: 8-bit weights."""

    ARM64 = "arm64"
    """64-bit ARM: signed weights and maps."""

    @classmethod
    def here(cls) -> Target:
        """The target for this machine."""
        if platform.machine().lower() in ("arm64", "aarch64"):
            return cls.ARM64
        flags = cpu_info()
        return cls.VNNI if "avx512_vnni" in flags or "avx_vnni" in flags else cls.AVX2

    @property
    def activations(self) -> Activations:
        """Integer type of the maps."""
        return Activations.INT8 if self is Target.ARM64 else Activations.UINT8

    @property
    def weight_levels(self) -> int:
        """The largest absolute value of an integer weight."""
        return 63 if self is Target.AVX2 else 127


@dataclass(frozen=True, slots=True)
class QuantizationConfig:
    """How a float file is quantized.

    Args:
        target: processors to write for (None: this machine's).
        clip: clip rare large values of maps if that makes the error smaller (for ONNX Runtime; NNCF's ways of doing so
            cost more than they gain).
        keep: names of convolutions to leave in float.
        agreement: required fraction of calibration images with the same top class in int8 and float. If it is not
            reached, the most sensitive layers are left in float.
        most_float: maximum number of layers to leave in float for that.
        fastest: time several forms here, with different layers in float, and take the fastest.
        threads: number of threads to time with.
    """

    target: Target | None = None
    clip: bool = True
    keep: Collection[str] = ()
    agreement: float = 0.99
    most_float: int = 16
    fastest: bool = False
    threads: int = 1

    def __post_init__(self) -> None:
        check_number("agreement", self.agreement, at_least=0, at_most=1)
        check_whole("most_float", self.most_float, at_least=0)
        check_flag("fastest", self.fastest)
        check_whole("threads", self.threads, at_most=1024)

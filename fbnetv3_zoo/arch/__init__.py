"""A network as one value: its rows, its blocks, its cost and latency. Imports no torch."""

from .arch import Arch
from .blocks import Block, settle
from .rows import Activation, Conv, Gate, InvertedResidual, PoolingHead, Row, Skip, SqueezeExcite, round_width

__all__ = [
    "Activation",
    "Arch",
    "Block",
    "Conv",
    "Gate",
    "InvertedResidual",
    "PoolingHead",
    "Row",
    "Skip",
    "SqueezeExcite",
    "round_width",
    "settle",
]

"""A network as one value: its rows, what they settle to, what it costs, and how long it takes. No torch in here."""

from .arch import Arch, Block, settle
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

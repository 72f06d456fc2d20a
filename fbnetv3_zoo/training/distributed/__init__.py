"""The processes of a run: one by default, several if started by ``torchrun``, or by :func:`together`."""

from .together import together
from .world import World, join, usable

__all__ = ["World", "join", "together", "usable"]

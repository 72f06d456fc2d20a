"""The processes of a run: one by default, several if started by ``torchrun``."""

from .world import World, join, usable

__all__ = ["World", "join", "usable"]

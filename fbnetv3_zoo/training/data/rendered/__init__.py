"""Images drawn from fonts and vector graphics, kept in one file with their splits."""

from .image_file import ImageFile

__all__ = ["ImageFile"]

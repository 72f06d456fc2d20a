"""Images drawn from fonts and vector graphics, kept in one file with their splits."""

from .emoji import emoji
from .image_file import ImageFile
from .letters import CHARACTERS, letters
from .vendors import Vendor, read_vendor

__all__ = ["CHARACTERS", "ImageFile", "Vendor", "emoji", "letters", "read_vendor"]

"""Images drawn from fonts and vector graphics, kept in one file with their splits."""

from .dataset_file import DatasetFile
from .emoji import emoji
from .letters import CHARACTERS, letters
from .vendors import Vendor, read_vendor

__all__ = ["CHARACTERS", "DatasetFile", "Vendor", "emoji", "letters", "read_vendor"]

"""Images in one file with their splits: drawn from fonts and vector graphics, or of another dataset, decoded once."""

from .dataset_file import DatasetFile
from .emoji import emoji
from .letters import CHARACTERS, letters
from .packed import packed
from .vendors import Vendor, read_vendor

__all__ = ["CHARACTERS", "DatasetFile", "Vendor", "emoji", "letters", "packed", "read_vendor"]

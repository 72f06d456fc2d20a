"""``fbnetv3 search``."""

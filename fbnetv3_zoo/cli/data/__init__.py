"""``fbnetv3 data``."""

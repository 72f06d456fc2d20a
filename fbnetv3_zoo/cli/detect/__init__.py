"""``fbnetv3 detect``."""

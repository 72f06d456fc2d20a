"""``fbnetv3 export``."""

"""Files, JSON, paths and hardware: what all parts need and no part is about."""

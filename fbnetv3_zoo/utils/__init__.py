"""Files, JSON, paths, hardware: helpers that all parts share."""

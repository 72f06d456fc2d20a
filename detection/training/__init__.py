"""Training and evaluating detectors, and showing what they find."""

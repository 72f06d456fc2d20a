"""Training and evaluating detectors, and drawing their detections."""

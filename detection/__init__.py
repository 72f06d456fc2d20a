"""FBNetV3 in detectors. Nothing here yet: it comes with the Faster R-CNN backbones."""

"""detectron2's side: backbones, heads and configurations for its unmodified tools."""

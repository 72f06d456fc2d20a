"""Backbones, heads and configurations for detectron2's unmodified tools."""

"""For ``DETECTRON2_ENV_MODULE``: detectron2 imports this module and calls :func:`setup_environment`.

DETECTRON2_ENV_MODULE=fbnetv3_zoo.detection.detectron2.environment python tools/train_net.py --config-file ...
"""

from __future__ import annotations


def setup_environment() -> None:
    """Add ``MODEL.FBNETV3`` to detectron2's default configuration."""
    from detectron2.config.defaults import _C

    from .modules import add_fbnetv3_config

    add_fbnetv3_config(_C)

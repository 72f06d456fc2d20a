"""Detection: any network of the zoo as the backbone of Faster R-CNN, and the published FBNetV3 detectors.

Public names are listed in ``__init__.pyi`` and are imported on first use; importing the package does not import torch.
"""

import lazy_loader

from fbnetv3_zoo.utils import telemetry  # noqa: F401 - ahead of the libraries that it silences

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

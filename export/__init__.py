"""Export: from a trained network to files that run without PyTorch.

Public names are listed in ``__init__.pyi`` and resolve on first use: importing the package imports no torch.
"""

import lazy_loader

from fbnetv3_zoo.utils import telemetry  # noqa: F401 - ahead of the libraries that it silences

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

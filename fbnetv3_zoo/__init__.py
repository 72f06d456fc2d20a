"""FBNetV3 and its family: define, create, train, export and run small, accurate vision networks.

Public names are listed in ``__init__.pyi`` and resolve on first use: importing the package imports no torch.
"""

from pathlib import Path

import lazy_loader

__version__ = "0.2.0"

# in a checkout, search, detection and export lie beside this folder
if not Path(__file__).with_name("search").exists():
    __path__.append(str(Path(__file__).parents[1]))

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Joint architecture-recipe search, FBNetV3's three stages; and the differentiable searches before it.

Public names are listed in ``__init__.pyi`` and resolve on first use: spaces, plans and costs need no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

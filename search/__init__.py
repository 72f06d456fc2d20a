"""Joint architecture-recipe search, FBNetV3's three stages; and the differentiable searches before it.

What most searches need is listed in ``__init__.pyi`` and resolves on first use: spaces, plans and costs need no torch.
The rest is in the parts ``space``, ``stages``, ``predictors``, ``evaluation``, ``executors`` and ``supernet``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Differentiable search: one supernet holds all networks of a space, and gradient descent chooses among them.

FBNet (V1) chooses among blocks (DNAS, arXiv 1812.03443), FBNetV2 among widths, expansions and resolutions too
(DMaskingNAS, arXiv 2004.05565). Both are one search here: a space says what there is to choose.

Names resolve on first use: spaces and plans need no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

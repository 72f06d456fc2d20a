"""Training on one machine or many, with exact resume; datasets, evaluation. Names resolve on first use."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Falconet trains, evaluates, shrinks, explains and ships small classifiers of images and sequences.

The public names stand in `__init__.pyi`; each is imported when it is first used, so that `import falconet` is quick.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

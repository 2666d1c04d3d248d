"""Compression: the search for the smallest file of a trained model within a budget, and its steps.

`steps` holds pure functions of a network, `search` proposes the next trial, `trial` runs one, `session` owns the
folder. The names are in `__init__.pyi`; each is imported when it is first used, so that budgets and settings need no
torch, and steps no reports.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

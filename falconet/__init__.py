"""Falconet trains, evaluates, shrinks, explains and ships small classifiers of images and sequences.

The public names stand in `__init__.pyi`; each is imported when it is first used, so that `import falconet` is quick.
"""

from typing import Any

import lazy_loader

_import_name, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("falconet")
    from falconet.renames import RENAMED_NAMES, note

    if name in RENAMED_NAMES:
        note(f"falconet.{name} is now falconet.{RENAMED_NAMES[name]}")
    return _import_name(RENAMED_NAMES.get(name, name))

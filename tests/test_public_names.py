"""The public names: one list, lazily imported, shared with no submodule."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import falconet


def type_checked_imports() -> dict[str, str]:
    """Return name → module for the imports under `if TYPE_CHECKING:`, which type checkers and editors read."""
    tree = ast.parse(Path(falconet.__file__).read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    for node in imports:
        assert all(alias.name == alias.asname for alias in node.names), "re-exports are written `name as name`"
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def test_all_homes_and_type_checked_imports_are_one_list() -> None:
    assert falconet.__all__ == sorted(falconet.HOMES)
    assert type_checked_imports() == falconet.HOMES


@pytest.mark.parametrize("name", falconet.__all__)
def test_name_is_the_one_of_its_home(name: str) -> None:
    assert getattr(falconet, name) is getattr(importlib.import_module(falconet.HOMES[name]), name)
    assert name in dir(falconet)


def test_functions_and_classes_tell_their_purpose() -> None:
    public = [getattr(falconet, name) for name in falconet.__all__]
    assert [value for value in public if callable(value) and not value.__doc__] == []


def test_no_submodule_has_a_public_name() -> None:
    submodules = {module.name for module in pkgutil.iter_modules(falconet.__path__)}
    assert submodules
    assert submodules.isdisjoint(falconet.__all__)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'falconet' has no attribute 'trian'"):
        _ = falconet.trian
    assert not hasattr(falconet, "HOME")


def loaded_by(code: str) -> set[str]:
    """Return the modules that are loaded after `code` has run in a new process."""
    script = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import falconet; dir(falconet); falconet.__all__",
        "import falconet; falconet.FalconetError; falconet.InputSpec; falconet.TrainConfig; falconet.list_models()",
    ],
)
def test_import_is_light(code: str) -> None:
    assert loaded_by(code).isdisjoint({"torch", "torchvision", "matplotlib", "pyarrow"})


def test_names_are_imported_on_first_use() -> None:
    loaded = loaded_by("import falconet")
    assert {name for name in loaded if name.startswith("falconet.")} == set()

"""The public names: one list, lazily imported, shared with no submodule."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import pkgutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import falconet
from falconet.data import Split

STUB = Path(falconet.__file__).with_suffix(".pyi")


def read_stub() -> dict[str, str]:
    """Return name → module for the imports of the stub, which `lazy_loader`, type checkers and editors read."""
    tree = ast.parse(STUB.read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert [ast.unparse(node) for node in tree.body if node not in imports] == ["__version__: str"]
    for node in imports:
        assert all(alias.name == alias.asname for alias in node.names), "re-exports are written `name as name`"
    return {alias.name: f"falconet.{node.module}" for node in imports for alias in node.names}


HOMES = read_stub()


def test_the_public_surface_is_what_the_stub_lists() -> None:
    assert dir(falconet) == sorted(HOMES)


@pytest.mark.parametrize("name", sorted(HOMES))
def test_name_is_the_one_of_its_home(name: str) -> None:
    assert getattr(falconet, name) is getattr(importlib.import_module(HOMES[name]), name)


def test_functions_and_classes_tell_their_purpose() -> None:
    public = [getattr(falconet, name) for name in sorted(HOMES)]
    assert [value for value in public if callable(value) and not value.__doc__] == []


SURFACE = {
    falconet.Model: {
        "artifact", "classes", "compress", "evaluate", "explain", "export", "module", "output", "predict",
        "predict_proba", "save", "spec",
    },
    falconet.Dataset: {
        "channels", "classes", "columns", "config", "fingerprint", "from_arrays", "from_dataframe",
        "ignored", "empty_class_contents", "kind", "made_splits", "notes", "rate", "size", "source", "split",
        "split_seed", "splits", "splits_fingerprint", "test", "train", "unreadable", "val", "value_range",
    },
    Split: {
        "classes", "extras", "group_names", "groups", "hashes", "labels", "name", "owner", "samples", "take",
        "to_loader",
    },
    falconet.Run: {
        "architecture", "best_epoch", "dataset", "epochs", "ignored", "model", "out", "report", "seconds", "test",
        "unreadable", "val",
    },
}  # fmt: skip
"""Public class → all that has no underscore before its name."""


@pytest.mark.parametrize("kind", SURFACE, ids=lambda kind: kind.__name__)
def test_the_public_attributes_are_listed_and_described(kind: type) -> None:
    documented = {name for base in kind.__mro__[:-1] for name in list_documented(base)}
    found = {name for base in kind.__mro__[:-1] for name in (*vars(base), *inspect.get_annotations(base))}
    assert {name for name in found if not name.startswith("_")} == SURFACE[kind]
    assert SURFACE[kind] <= documented


def list_documented(kind: type) -> set[str]:
    """Return the fields of a class that a string follows, and its functions and properties that begin with one."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(kind)).body if isinstance(node, ast.ClassDef))
    fields = {
        node.target.id
        for node, after in itertools.pairwise(body)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(after, ast.Expr)
    }
    return fields | {node.name for node in body if isinstance(node, ast.FunctionDef) and ast.get_docstring(node)}


def test_the_version_is_that_of_the_distribution() -> None:
    assert falconet.__version__ == version("falconet")


def test_no_submodule_has_a_public_name() -> None:
    submodules = {module.name for module in pkgutil.iter_modules(falconet.__path__)}
    assert submodules
    assert submodules.isdisjoint(HOMES)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match=r"falconet.*trian"):
        _ = getattr(falconet, "trian")  # noqa: B009 - a type checker would refuse the name
    assert not hasattr(falconet, "HOME")


def loaded_by(code: str) -> set[str]:
    """Return the modules that are loaded after `code` has run in a new process."""
    script = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import falconet; dir(falconet); falconet.__version__",
        "import falconet; falconet.FalconetError; falconet.InputSpec; falconet.TrainConfig; falconet.list_models()",
    ],
)
def test_import_is_light(code: str) -> None:
    assert loaded_by(code).isdisjoint({"torch", "torchvision", "matplotlib", "pyarrow"})


def test_names_are_imported_on_first_use() -> None:
    loaded = loaded_by("import falconet")
    assert {name for name in loaded if name.startswith("falconet.")} == set()


@pytest.mark.slow
def test_type_checkers_know_the_names(tmp_path: Path) -> None:
    snippet = tmp_path / "snippet.py"
    snippet.write_text("import falconet\nreveal_type(falconet.TrainConfig().epochs)\nfalconet.trian\n")
    # With the options of `make lint`, whose cache it finds where that was run before.
    command = [sys.executable, "-m", "mypy", str(snippet)]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False)
    assert 'Revealed type is "int"' in done.stdout or 'Revealed type is "builtins.int"' in done.stdout, done.stdout
    assert 'Module has no attribute "trian"' in done.stdout

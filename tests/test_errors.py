"""The tree of errors is the one that its docstring draws."""

from __future__ import annotations

import re

import pytest

from falconet import errors
from falconet.errors import FalconetError, MissingExtraError, UnknownNameError, UsageError


def drawn_tree() -> list[tuple[str, str]]:
    """Return (child, parent) for each branch in the module's docstring."""
    assert errors.__doc__ is not None
    parents: dict[int, str] = {}
    branches = []
    for line in errors.__doc__.splitlines():
        found = re.match(r"    ([│ ]*[├└]── )?(\w+Error)\b", line)
        if found:
            depth = len(found[1] or "") // 4
            parents[depth] = found[2]
            if depth:
                branches.append((found[2], parents[depth - 1]))
    return branches


def test_every_error_is_drawn() -> None:
    defined = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert {child for child, _ in drawn_tree()} | {"FalconetError"} == defined


@pytest.mark.parametrize(("child", "parent"), drawn_tree())
def test_parent_is_as_drawn(child: str, parent: str) -> None:
    assert getattr(errors, child).__bases__[0] is getattr(errors, parent)


@pytest.mark.parametrize("name", ["FalconetError", *(child for child, _ in drawn_tree())])
def test_exit_code_is_2_for_wrong_usage_alone(name: str) -> None:
    kind = getattr(errors, name)
    assert kind.exit_code == (2 if issubclass(kind, UsageError) else 1)


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("UsageError", ValueError),
        ("DataError", ValueError),
        ("MissingExtraError", ImportError),
        ("StorageError", OSError),
    ],
)
def test_errors_are_also_the_builtin_kind_that_callers_expect(name: str, builtin: type[Exception]) -> None:
    assert issubclass(getattr(errors, name), builtin)


def test_unknown_name_offers_the_nearest() -> None:
    message = str(UnknownNameError("model", "lenet6", ["vgg16", "lenet5", "lenet_relu"]))
    assert message == "unknown model 'lenet6': did you mean lenet5 or lenet_relu?"


def test_unknown_name_lists_all_where_none_is_near() -> None:
    message = str(UnknownNameError("model", "zzz", ["beta", "alpha"], "(`falconet models` lists them)"))
    assert message == "unknown model 'zzz': known: alpha, beta (`falconet models` lists them)"


def test_missing_extra_names_the_command() -> None:
    error = MissingExtraError("tables", "writing a.parquet")
    assert str(error) == "writing a.parquet needs an optional dependency: pip install 'falconet[tables]'"
    assert isinstance(error, FalconetError)


def test_a_name_of_megabytes_is_compared_with_none(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def find_near(name: str, *how: object, **named: object) -> list[str]:
        asked.append(name)
        return []

    monkeypatch.setattr("difflib.get_close_matches", find_near)
    assert "known: lenet5, resnet20" in str(UnknownNameError("model", "a" * 1_000_000, ["resnet20", "lenet5"]))
    assert asked == []
    UnknownNameError("model", "lenet" * 4, ["resnet20", "lenet5"])
    assert asked == ["lenet" * 4]

"""Budgets, and how users write sizes, counts and times."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falconet import planning
from falconet.budget import Budget, SearchConfig
from falconet.budget.compressing import RECIPES
from falconet.budget.goals import parse_count, parse_latency, parse_size, parse_time, show_size
from falconet.errors import ConfigError
from falconet.planning import expand_policy, list_recipes, load_recipe
from falconet.schema import from_mapping
from falconet.spec import Kind
from falconet.training import TrainConfig


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("40kB", 40_000),
        ("40 KB", 40_000),
        ("40k", 40_000),
        ("1.5MB", 1_500_000),
        ("2KiB", 2048),
        ("3000", 3000),
        ("1MiB", 2**20),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("10m", 600), ("90s", 90), ("1.5h", 5400), ("0.5s", 0.5), ("2min", 120)])
def test_times(text: str, seconds: float) -> None:
    assert parse_time(text) == pytest.approx(seconds)


@pytest.mark.parametrize(("text", "milliseconds"), [("1ms", 1.0), ("250us", 0.25), ("2s", 2000)])
def test_latencies(text: str, milliseconds: float) -> None:
    assert parse_latency(text) == pytest.approx(milliseconds)


def test_a_latency_in_minutes_is_a_slip() -> None:
    with pytest.raises(ConfigError, match=r"--max-latency: wanted a time such as 1ms or 250us, found '1m'"):
        parse_latency("1m", "--max-latency")


@pytest.mark.parametrize(("text", "count"), [("1M", 10**6), ("1.5M", 1_500_000), ("300k", 300_000), ("12", 12)])
def test_counts(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "kB", "-3kB", "0kB", "4 parsecs", "1e3", "nan", "1..5MB", "inf", "0.5B"])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--max-size: wanted a size such as 40kB"):
        parse_size(text, "--max-size")


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_a_clear_error(text: str) -> None:
    message = ""
    try:
        assert parse_size(text) >= 1
    except ConfigError as error:
        message = str(error)
    assert not message or "wanted a size" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_bytes": 0}, "max_bytes: wanted above 0, found 0"),
        ({"max_drop": -1.0}, "max_drop: wanted 0 to 100 points of accuracy, found -1"),
        ({"max_drop": float("nan")}, "max_drop: wanted 0 to 100"),
        ({"seconds": float("inf")}, "seconds: wanted above 0"),
        ({"max_latency_ms": -2.0}, "max_latency_ms: wanted above 0"),
    ],
)
def test_budgets_that_cannot_be(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Budget(**changes)  # type: ignore[arg-type]


def test_without_limits_half_a_point_may_go() -> None:
    assert Budget().allowed_drop == 0.5
    assert Budget(max_drop=0.0).allowed_drop == 0
    assert Budget(max_bytes=1).allowed_drop == 100
    assert Budget(max_bytes=1, max_drop=0.2).allowed_drop == 0.2


def test_a_budget_in_words() -> None:
    assert Budget(max_bytes=40_000).describe() == "at most 40.0 kB"
    assert Budget().describe() == "at most 0.5 points lost"
    everything = Budget(3000, 0.2, 1.5, 1_000_000, 600)
    assert everything.describe() == "at most 3,000 bytes, 0.2 points lost, 1.5 ms, 1,000,000 MACs, 600 s of search"
    assert [show_size(size) for size in (9_999, 10_000, 2_500_000)] == ["9,999 bytes", "10.0 kB", "2.50 MB"]


@pytest.mark.parametrize("name", list_recipes(RECIPES))
def test_recipes_are_searches_and_say_what_they_reach(name: str) -> None:
    settings = load_recipe(name, RECIPES)
    kind: Kind = "text" if "mask" in settings["augmentation"] else "image"
    augmentation = expand_policy(settings["augmentation"], kind)
    config = from_mapping(SearchConfig, {**settings, "augmentation": augmentation})
    assert config.training.epochs == TrainConfig().epochs, "the search says how long"
    text = (Path(planning.__file__).parent / "recipes" / RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    for part in ("Paper:", "Command:   falconet compress DIR", f"--recipe {name}", "Hardware:", "Expected:"):
        assert part in text

"""Budgets, and the recipes of searches for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from falconet import planning
from falconet.compression import Budget, SearchConfig
from falconet.compression.session import RECIPES
from falconet.errors import ConfigError
from falconet.planning import expand_policy, list_recipes, load_recipe
from falconet.schema import from_mapping
from falconet.spec import ModalityName
from falconet.training import TrainConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_bytes": 0}, "max_bytes: wanted above 0, found 0"),
        ({"max_drop": -1.0}, "max_drop: wanted 0 to 100 points of accuracy, found -1"),
        ({"max_drop": float("nan")}, "max_drop: wanted a finite number, found nan"),
        ({"seconds": float("inf")}, "seconds: wanted a finite number, found inf"),
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


@pytest.mark.parametrize("name", list_recipes(RECIPES))
def test_recipes_are_searches_and_say_what_they_reach(name: str) -> None:
    settings = load_recipe(name, RECIPES)
    kind: ModalityName = "text" if "mask" in settings["augmentation"] else "image"
    augmentation = expand_policy(settings["augmentation"], kind)
    config = from_mapping(SearchConfig, {**settings, "augmentation": augmentation})
    assert config.training.epochs == TrainConfig().epochs, "the search says how long"
    text = (Path(planning.__file__).parent / "recipes" / RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    for part in ("Paper:", "Command:   falconet compress DIR", f"--recipe {name}", "Hardware:", "Expected:"):
        assert part in text

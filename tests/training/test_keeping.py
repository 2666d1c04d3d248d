"""Which epoch a run keeps by default."""

from __future__ import annotations

from typing import Any

import pytest

from falconet.training import TrainConfig
from falconet.training.keeping import choose_keeping


@pytest.mark.parametrize(
    ("count", "training", "keep", "patience"),
    [
        (299, {"epochs": 40}, "last", None),
        (300, {"epochs": 40}, "best", 10),
        (300, {"epochs": 12}, "best", 5),
        # What is asked for decides, and the other default agrees with it.
        (20, {"epochs": 40, "keep": "best"}, "best", 10),
        (20, {"epochs": 40, "patience": 3}, "best", 3),
        (5000, {"epochs": 40, "keep": "last"}, "last", None),
        (5000, {"epochs": 40, "patience": None}, "best", None),
        (5000, {"epochs": 40, "patience": 3}, "best", 3),
    ],
)
def test_what_is_kept_follows_from_the_validation_samples(
    count: int, training: dict[str, Any], keep: str, patience: int | None
) -> None:
    config = TrainConfig(**{**choose_keeping(count, training), **training})
    assert (config.keep, config.patience) == (keep, patience)


def test_epochs_that_are_no_number_are_left_to_whoever_checks_them() -> None:
    assert choose_keeping(300, {"epochs": "many"}) == {"keep": "best", "patience": None}

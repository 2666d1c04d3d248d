"""Which epoch a run keeps by default."""

from __future__ import annotations

from typing import Any

import pytest

from falconet.training import TrainConfig
from falconet.training.early_stopping import choose_early_stopping


@pytest.mark.parametrize(
    ("count", "training", "restore", "patience"),
    [
        (299, {"epochs": 40}, "last", None),
        (300, {"epochs": 40}, "best", 10),
        (300, {"epochs": 12}, "best", 5),
        # What is asked for decides, and the other default agrees with it.
        (20, {"epochs": 40, "restore": "best"}, "best", 10),
        (20, {"epochs": 40, "patience": 3}, "best", 3),
        (5000, {"epochs": 40, "restore": "last"}, "last", None),
        (5000, {"epochs": 40, "patience": None}, "best", None),
        (5000, {"epochs": 40, "patience": 3}, "best", 3),
    ],
)
def test_what_is_kept_follows_from_the_validation_samples(
    count: int, training: dict[str, Any], restore: str, patience: int | None
) -> None:
    config = TrainConfig(**{**choose_early_stopping(count, training), **training})
    assert (config.restore, config.patience) == (restore, patience)


def test_epochs_that_are_no_number_are_left_to_whoever_checks_them() -> None:
    assert choose_early_stopping(300, {"epochs": "many"}) == {"restore": "best", "patience": None}

"""The leaderboard of a run's candidates, and the choice of the best."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from falconet.errors import (
    ArtifactError,
    UsageError,
)
from falconet.planning import (
    CHECKPOINT_FOLDER,
    LEADERBOARD_FILE,
    Plan,
)
from falconet.report import LeaderboardRow
from falconet.schema import from_mapping, to_mapping
from falconet.storage import read_json, write_json
from falconet.training.early_stopping import MIN_VALIDATION
from falconet.training.linear_probe import LinearProbe
from falconet.training.loop import FitResult

PROBE_FILE = "linear_probe.json"
"""File beside the checkpoints of a run whose first epoch solved its output layer, with a `ProbeScore`."""


@dataclass(frozen=True)
class ProbeScore:
    """The cross-validation score of a solved output layer; `accuracy` is None where there is none."""

    accuracy: float | None
    left_out: int
    """Number of held-out training samples over which the accuracy is taken."""


def score_probe(solution: LinearProbe) -> ProbeScore:
    return ProbeScore(solution.accuracy, solution.left_out)


def load_probe_score(plan: Plan) -> ProbeScore | None:
    """Return the cross-validation score of a resumed run; None where it is unknown."""
    try:
        return from_mapping(ProbeScore, read_json(plan.out / CHECKPOINT_FOLDER / PROBE_FILE))
    except (ArtifactError, UsageError):
        return None


def make_row(plan: Plan, validated: int, result: FitResult, probe: ProbeScore | None, began: float) -> LeaderboardRow:
    """Return a candidate's row of the leaderboard."""
    best = result.best.val_accuracy if result.best else 0.0
    kept = probe if result.best_epoch == 1 else None
    return LeaderboardRow(
        plan.config.model.name,
        kept.accuracy if kept else None,
        best,
        time.perf_counter() - began,
        kept.left_out if kept else 0,
        validated,
    )


def write_or_read_leaderboard(plan: Plan, rows: tuple[LeaderboardRow, ...]) -> tuple[LeaderboardRow, ...]:
    """Write and return the leaderboard; without rows, return that of an earlier part of a resumed run."""
    if rows:
        write_leaderboard(plan.out, rows)
    return rows or (_read_leaderboard(plan.out) if plan.if_exists == "resume" else ())


def write_leaderboard(folder: Path, rows: Sequence[LeaderboardRow]) -> None:
    """Write the leaderboard into a folder, for when the run is resumed."""
    write_json(folder / LEADERBOARD_FILE, {"candidates": [to_mapping(row) for row in rows]})


def _read_leaderboard(folder: Path) -> tuple[LeaderboardRow, ...]:
    """Return the leaderboard of an ended run; empty where it had none, or cannot be read."""
    try:
        rows = tuple(from_mapping(LeaderboardRow, row) for row in read_json(folder / LEADERBOARD_FILE)["candidates"])
    except (ArtifactError, UsageError, KeyError, TypeError):
        return ()
    return rows if any(row.kept for row in rows) else ()


def describe_row(row: LeaderboardRow) -> str:
    """Return a row of the leaderboard in words."""
    left_out = "" if row.cross_validated is None else f", {row.cross_validated:.2%} by cross-validation"
    return f"{row.model}: validation {row.val_accuracy:.2%}{left_out}, in {row.seconds:.1f} s"


def choose_best_row(rows: Sequence[LeaderboardRow]) -> int:
    """Return the position of the network that is kept.

    Of the linear probes it is the one with the highest accuracy on held-out samples, training and validation ones
    together; of equals the first one. The other networks have only validation samples, by which their epoch was chosen
    too, so that one of them is kept only where it is ahead on these by more than its standard error (Breiman, Friedman,
    Olshen, Stone: Classification and regression trees. 1984, section 3.4.3). Where these are few, it must be as far
    ahead of the probe's accuracy on all held-out samples, too.
    """
    solved = [position for position, row in enumerate(rows) if row.cross_validated is not None]
    trained = [position for position, row in enumerate(rows) if row.cross_validated is None]
    if not solved or not trained:
        return max(range(len(rows)), key=lambda position: rows[position].accuracy)
    simple = max(solved, key=lambda position: rows[position].accuracy)
    best = max(trained, key=lambda position: rows[position].val_accuracy)
    accuracy = rows[best].val_accuracy
    ahead = accuracy - rows[simple].val_accuracy
    if rows[best].validated < MIN_VALIDATION:
        ahead = min(ahead, accuracy - rows[simple].accuracy)
    return best if ahead > _standard_error(rows[best]) else simple


def _standard_error(row: LeaderboardRow) -> float:
    """Return the standard error of a validation accuracy, with one hit and one miss added, so that it is never 0."""
    rate = (row.val_accuracy * row.validated + 1) / (row.validated + 2)
    return math.sqrt(rate * (1 - rate) / (row.validated + 2))

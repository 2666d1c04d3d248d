"""What the networks that a run tried came to, and which of them is kept."""

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
"""Beside the checkpoints of a run whose first epoch solved its output layer: a `ProbeScore`."""


@dataclass(frozen=True)
class ProbeScore:
    """What cross-validation said of a solved output layer."""

    accuracy: float | None
    left_out: int
    """Training samples that it is over."""


def score_probe(solution: LinearProbe) -> ProbeScore:
    return ProbeScore(solution.accuracy, solution.left_out)


def load_probe_score(plan: Plan) -> ProbeScore | None:
    """Return what cross-validation said in a run that goes on; None where nothing tells of it."""
    try:
        return from_mapping(ProbeScore, read_json(plan.out / CHECKPOINT_FOLDER / PROBE_FILE))
    except (ArtifactError, UsageError):
        return None


def make_row(plan: Plan, validated: int, result: FitResult, probe: ProbeScore | None, began: float) -> LeaderboardRow:
    """Return what a network came to, in one line."""
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
    """Write what candidates came to into the run's folder; where none was tried, return what an ended run has there."""
    if rows:
        write_leaderboard(plan.out, rows)
    return rows or (_read_leaderboard(plan.out) if plan.if_exists == "resume" else ())


def write_leaderboard(folder: Path, rows: Sequence[LeaderboardRow]) -> None:
    """Keep what the candidates came to, so that a run that goes on knows it."""
    write_json(folder / LEADERBOARD_FILE, {"candidates": [to_mapping(row) for row in rows]})


def _read_leaderboard(folder: Path) -> tuple[LeaderboardRow, ...]:
    """Return what the candidates of an ended run came to; nothing where it had none, or nothing tells of them."""
    try:
        rows = tuple(from_mapping(LeaderboardRow, row) for row in read_json(folder / LEADERBOARD_FILE)["candidates"])
    except (ArtifactError, UsageError, KeyError, TypeError):
        return ()
    return rows if any(row.kept for row in rows) else ()


def describe_row(row: LeaderboardRow) -> str:
    """Return what a network came to, in words."""
    left_out = "" if row.cross_validated is None else f", {row.cross_validated:.2%} by cross-validation"
    return f"{row.model}: validation {row.val_accuracy:.2%}{left_out}, in {row.seconds:.1f} s"


def choose_best_row(rows: Sequence[LeaderboardRow]) -> int:
    """Return the position of the network that is kept.

    Of those whose output layer was solved it is the one that answers most samples right that it did not learn from; of
    equals the first one. Only validation samples tell how good the others are, which were chosen by these besides, so
    that one of them is kept where it is ahead on these by more than its standard error (Breiman, Friedman, Olshen,
    Stone: Classification and regression trees. 1984, section 3.4.3). Where these are few, it must be ahead so far of
    what the solved one comes to on all those samples, too.
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
    """Return that of a validation accuracy, with one right and one wrong answer added: all right is no certainty."""
    rate = (row.val_accuracy * row.validated + 1) / (row.validated + 2)
    return math.sqrt(rate * (1 - rate) / (row.validated + 2))

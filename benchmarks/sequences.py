"""A 1-D ResNet, a recurrent network and a Transformer on texts, series and recordings, each by its recipe.

Each set has a baseline, computed here, which each network is to beat for itself.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baselines import classify_recordings, classify_texts, find_neighbors
from record import Row, decide, mean, run_recipe, save, seed_interval

from falconet import Dataset, load_dataset

SEEDS = (0, 1, 2)
NETWORKS = ("gru", "transformer", "resnet1d")


@dataclass(frozen=True)
class Case:
    """A data set and its baseline."""

    source: str
    """Below the data root."""
    recipes: str
    """What the recipes' names begin with."""
    baseline: str
    measure: Callable[[Dataset], float]
    """Returns the baseline's test accuracy."""


CASES: Mapping[str, Case] = {
    "banking77": Case("banking77", "text", "logistic regression on TF-IDF", classify_texts),
    "GunPoint": Case("ucr/GunPoint_TRAIN.ts", "series", "nearest neighbor", find_neighbors),
    "ItalyPowerDemand": Case("ucr/ItalyPowerDemand_TRAIN.ts", "series", "nearest neighbor", find_neighbors),
    "spoken-digits": Case("spoken-digits", "speech", "logistic regression on band energies", classify_recordings),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True, help="folder that holds banking77/, ucr/, ...")
    parser.add_argument("--out", help="keeps the runs here, so that an interrupted benchmark goes on")
    parser.add_argument("--case", choices=list(CASES), help="measure only this")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(arguments.out or scratch)
        for name in [arguments.case] if arguments.case else CASES:
            save(f"sequences-{name.lower()}", compare(name, CASES[name], arguments.data_root, out))


def compare(name: str, case: Case, root: Path, out: Path) -> list[Row]:
    """Train each network for every seed, and return its test accuracy beside the baseline's."""
    source = root / case.source
    peer = 100 * case.measure(load_dataset(source))
    print(f"{name}: {case.baseline} {peer:.2f} %", flush=True)
    return [measure(f"{case.recipes}-{network}", name, source, out, case.baseline, peer) for network in NETWORKS]


def measure(recipe: str, name: str, source: Path, out: Path, baseline: str, peer: float) -> Row:
    """Train a recipe for every seed, and return its test accuracy beside the baseline's."""
    runs = run_recipe(str(source), recipe, SEEDS, out / f"{name}-{recipe}")
    return evaluate(f"{name}, recipe {recipe}: test accuracy", runs, baseline, peer)


def evaluate(title: str, runs: Sequence[Mapping[str, Any]], baseline: str, peer: float) -> Row:
    """Return the row of a network, whose own accuracy decides."""
    accuracies = [100 * run["test"]["accuracy"] for run in runs]
    value, std = mean(accuracies)
    interval = seed_interval(accuracies)
    return Row(
        title, value, "%", len(runs), std, f"above {peer:.2f} %", decide(value, interval, least=peer), baseline, peer,
        value / peer, runs[0]["params"], runs[0]["macs"], interval, "seeds",
    )  # fmt: skip


if __name__ == "__main__":
    main()

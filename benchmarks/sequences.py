"""A 1-D ResNet, a recurrent network and a Transformer on texts, series and recordings, each by its recipe.

Each set has a baseline, computed here, which the best of the three must beat.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from baselines import classify_recordings, classify_texts, find_neighbors
from record import Row, mean, run_recipe, save

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
    rows = [measure(f"{case.recipes}-{network}", name, source, out) for network in NETWORKS]
    best = max(row.value for row in rows)
    target = f"best of {len(rows)} above {peer:.2f} %"
    return [
        replace(row, target=target, met=best > peer, peer=case.baseline, peer_value=peer, ratio=row.value / peer)
        for row in rows
    ]


def measure(recipe: str, name: str, source: Path, out: Path) -> Row:
    """Train a recipe for every seed, and return its test accuracy."""
    runs = run_recipe(str(source), recipe, SEEDS, out / f"{name}-{recipe}")
    value, std = mean([100 * run["test"]["accuracy"] for run in runs])
    cost = {"params": runs[0]["params"], "macs": runs[0]["macs"]}
    return Row(f"{name}, recipe {recipe}: test accuracy", value, "%", len(runs), std, "", True, **cost)


if __name__ == "__main__":
    main()

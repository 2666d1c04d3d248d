"""Test errors of the recipes that train for accuracy, against what was published."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

from record import Row, decide, mean, run_recipe, save, seed_interval


@dataclass(frozen=True)
class Claim:
    """What a recipe is to reach."""

    source: str
    recipe: str
    seeds: tuple[int, ...]
    published: str
    published_error: float
    """Percent of the test split; so are the next two."""
    least: float
    goal: float
    largest: int | None = None
    """Parameters that the network may have."""


CLAIMS = (
    Claim("mnist", "mnist-best", (0, 1, 2), "LeCun et al., 1998: LeNet-5", 0.80, 0.35, 0.30, 500_000),
    Claim("cifar10", "cifar10-resnet20", (0,), "He et al., 2016: ResNet-20, over 160 epochs", 8.75, 9.30, 8.75),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", help="the folder that holds the data sets; downloaded where they are missing")
    parser.add_argument("--out", help="keeps the runs here, so that an interrupted benchmark goes on")
    parser.add_argument("--recipe", choices=[claim.recipe for claim in CLAIMS], help="measure only this")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for claim in CLAIMS:
            if arguments.recipe in (None, claim.recipe):
                out = Path(arguments.out or scratch) / claim.recipe
                save(f"accuracy-{claim.recipe}", [measure(claim, arguments.data_root, out)])


def measure(claim: Claim, data_root: str | None, out: Path) -> Row:
    """Train and evaluate a recipe for each of its seeds."""
    root = ("--data-root", data_root) if data_root else ()
    runs = run_recipe(claim.source, claim.recipe, claim.seeds, out, *root)
    params = runs[0]["params"]
    if claim.largest and params > claim.largest:
        raise SystemExit(f"{claim.recipe}: wanted at most {claim.largest:,} parameters, found {params:,}")
    errors = [100 * (1 - run["test"]["accuracy"]) for run in runs]
    value, std = mean(errors)
    interval = seed_interval(errors)
    return Row(
        name=f"{claim.source}, recipe {claim.recipe}, {runs[0]['epochs']} epochs: test error",
        value=value,
        unit="%",
        n=len(runs),
        std=std,
        target=f"at most {claim.least:.2f} % (goal {claim.goal:.2f} %)",
        met=decide(value, interval, most=claim.least),
        peer=claim.published,
        peer_value=claim.published_error,
        ratio=value / claim.published_error,
        params=params,
        macs=runs[0]["macs"],
        interval=interval,
        over="seeds",
    )


if __name__ == "__main__":
    main()

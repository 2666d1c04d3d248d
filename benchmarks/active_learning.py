"""Labels that it takes to reach 99 % of the accuracy of all labels: chosen as `falconet label` does, or by chance.

In each of 30 seeds, 30 % of a set are held out and the rest is the pool, whose labels are bought batch by batch; a
linear probe on features that do not change learns those bought so far. What the whole pool gives is the full accuracy.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from embedded_sets import EmbeddedSet, embed_set
from jaxtyping import Int64
from record import Row, compare_rounds, decide, mean, save
from torch import Tensor

from falconet.labeling.selection import choose_samples, measure_uncertainty
from falconet.training.linear_probe import Features, LinearProbe, solve, take_rows

SETS = {"digits": 20, "banking77": 40, "sign-digits": 40}
"""Labels a batch."""
SEEDS = 30
HELD_OUT = 0.3
WANTED = 0.99
"""Of the full accuracy."""
MOST, GOAL = 0.7, 0.6
"""Of the labels that chance needs."""

Choose = Callable[[Features, int, LinearProbe | None, int], Int64[Tensor, " chosen"]]
"""From the features of what has no label, how many are wanted, what was learned so far and a seed to positions."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True, help="folder that holds sign-digits/, banking77/, ...")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS), help="measure only these")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument(
        "--out", type=Path, help="keeps what was counted here, so that an interrupted benchmark goes on"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.out or Path(scratch)
        rows = [measure(embed_set(name, arguments.data_root), name, arguments.seeds, folder) for name in arguments.sets]
    save("active-learning", rows)


def measure(data: EmbeddedSet, name: str, seeds: int, folder: Path) -> Row:
    """Return how many labels both ways take."""
    batch, path = SETS[name], folder / f"{name}.json"
    counted: list[tuple[float, float]] = json.loads(path.read_text()) if path.exists() else []
    for seed in range(len(counted), seeds):
        order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(seed))
        held_out, pool = order[: count_held_out(data)], order[count_held_out(data) :]
        full = score(data, pool, held_out)[1]
        ours, chance = (
            count_labels(data, pool, held_out, WANTED * full, choose, batch, seed)
            for choose in (choose_diverse, choose_any)
        )
        print(f"{data.title}: seed {seed}: full {full:.4f}, {ours:.0f} against {chance:.0f}", flush=True)
        counted.append((ours, chance))
        path.write_text(json.dumps(counted))
    return evaluate(data, batch, *zip(*counted[:seeds], strict=True))


def count_held_out(data: EmbeddedSet) -> int:
    return round(HELD_OUT * len(data.labels))


def evaluate(data: EmbeddedSet, batch: int, ours: Sequence[float], chance: Sequence[float]) -> Row:
    """Return the row of the labels that both ways took."""
    (value, std), (peer, peer_std) = mean(ours), mean(chance)
    ratio, interval = compare_rounds(ours, chance)
    pool = len(data.labels) - count_held_out(data)
    return Row(
        f"{data.title}: labels for 99 % of the accuracy of all {pool:,}", value, "labels", len(ours), std,
        f"at most {MOST} of the labels that chance needs (goal {GOAL})", decide(ratio, interval, most=MOST),
        "labels chosen by chance", peer, ratio, interval=interval, over="seeds, of the ratio", peer_std=peer_std,
        note=f"batches of {batch}; the curve between batches taken as straight",
    )  # fmt: skip


def score(
    data: EmbeddedSet, labeled: Int64[Tensor, " labeled"], held_out: Int64[Tensor, " held_out"]
) -> tuple[LinearProbe | None, float]:
    """Return what is learned from some labels, and its accuracy; of one class alone, nothing and how often it is."""
    labels = data.labels[labeled]
    if bool((labels == labels[0]).all()):
        return None, float((data.labels[held_out] == labels[0]).double().mean())
    solution = solve(take_rows(data.features, labeled), labels, data.num_classes, data.solver)
    answers = solution.apply(take_rows(data.features, held_out)).argmax(dim=1)
    return solution, float((answers == data.labels[held_out]).double().mean())


def count_labels(
    data: EmbeddedSet,
    pool: Int64[Tensor, " pool"],
    held_out: Int64[Tensor, " held_out"],
    wanted: float,
    choose: Choose,
    batch: int,
    seed: int,
) -> float:
    """Return after how many labels an accuracy is first reached."""
    labeled = pool[:0]
    solution, reached, bought = None, 0.0, 0
    while len(labeled) < len(pool):
        rest = pool[~torch.isin(pool, labeled)]
        labeled = torch.cat([labeled, rest[choose(take_rows(data.features, rest), batch, solution, seed)]])
        solution, accuracy = score(data, labeled, held_out)
        if accuracy >= wanted:
            return bought + (len(labeled) - bought) * (wanted - reached) / (accuracy - reached)
        reached, bought = accuracy, len(labeled)
    return float(len(pool))


def choose_diverse(features: Features, count: int, solution: LinearProbe | None, seed: int) -> Int64[Tensor, " chosen"]:
    """Choose as `falconet label` does."""
    if solution is None:
        return choose_samples(features, count, seed=seed)
    return choose_samples(features, count, measure_uncertainty(solution.apply(features).softmax(dim=1).double()), seed)


def choose_any(features: Features, count: int, solution: LinearProbe | None, seed: int) -> Int64[Tensor, " chosen"]:
    """Choose by chance, which goes on from batch to batch."""
    generator = torch.Generator().manual_seed(1000 * seed + len(features))
    return torch.randperm(len(features), generator=generator)[:count]


if __name__ == "__main__":
    main()

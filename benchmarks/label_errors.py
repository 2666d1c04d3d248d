"""Wrong labels that are planted and found again: `falconet data --label-errors` beside cleanlab.

In each seed, 5 % of all labels become another class, any with equal probability. Precision at k: which part of the k
samples that are suspected most have planted labels, k being how many were planted. cleanlab gets the same features and
the best of its three rankings, found with the truth at hand; where Falconet trains a network on pixels, cleanlab's
logistic regression has the pixels. What its rankings make of Falconet's own probabilities is measured too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from embedded_sets import load
from record import Row, decide, mean, save, seed_interval

from falconet import Dataset
from falconet.auditing import choose_fixed, embed_split, find_contradictions, predict_held_out, prepare_candidate
from falconet.training.linear_probe import Features

SETS = ("digits", "sign-digits", "banking77", "mnist", "GunPoint", "spoken-digits")
SEEDS = 5
OURS = "falconet"
NOTE = (
    "the best of cleanlab's three rankings, found with the truth at hand; how Falconet suspects was chosen by such "
    "figures on digits, sign-digits, GunPoint and spoken-digits, checked on a seed of the others; these are among them"
)
NOISE = 0.05
PEER = Path(__file__).parent / "peers" / "cleanlab_rank.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True, help="folder that holds sign-digits/, MNIST/, ...")
    parser.add_argument("--cleanlab", type=Path, required=True, help="a Python that has requirements-cleanlab.txt")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="measure only these")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--out", type=Path, help="keeps what was found here, so that an interrupted benchmark goes on")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.out or Path(scratch)
        version = ask_version(arguments.cleanlab)
        rows = [
            row
            for name in arguments.sets
            for row in compare(name, arguments.data_root, arguments.cleanlab, version, arguments.seeds, folder)
        ]
    save("label-errors", rows)


def ask_version(python: Path) -> str:
    """Return what the peer is called."""
    script = "import importlib.metadata; print(importlib.metadata.version('cleanlab'))"
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    return f"cleanlab {done.stdout.strip()}"


def compare(name: str, data_root: Path, python: Path, version: str, seeds: int, folder: Path) -> list[Row]:
    """Return the rows of a set."""
    dataset = load(name, data_root)
    total = len(dataset.split("all"))
    found = []
    for seed in range(seeds):
        path = folder / f"{name}-{seed}.json"
        if not path.exists():
            path.write_text(json.dumps(search(dataset, seed, python, folder)))
        found.append(json.loads(path.read_text()))
        print(name, seed, {way: f"{value:.1f}" for way, value in found[-1].items()}, flush=True)
    title = f"{name}, {total:,} samples, {round(NOISE * total)} wrong labels planted: precision at as many"
    return [evaluate(title, found, source, version) for source in ("logistic regression", "the same probabilities")]


def evaluate(title: str, found: Sequence[Mapping[str, float]], source: str, version: str) -> Row:
    """Return the row of Falconet beside the best ranking of cleanlab by probabilities from one source.

    Its own decide; with those that Falconet evaluates by, cleanlab tells what its ranking alone is worth.
    """
    ways = [way for way in found[0] if way.startswith(source)]
    peers = {way: [values[way] for values in found] for way in ways}
    best = max(ways, key=lambda way: mean(peers[way])[0])
    ours = [values[OURS] for values in found]
    (value, std), (peer, peer_std) = mean(ours), mean(peers[best])
    differences = [first - second for first, second in zip(ours, peers[best], strict=True)]
    interval = seed_interval(differences)
    claim = source == "logistic regression"
    return Row(
        title if claim else f"{title}; cleanlab's ranking by the same probabilities", value, "%", len(ours), std,
        "at least cleanlab's" if claim else None,
        decide(mean(differences)[0], interval, least=0.0) if claim else None,
        f"{version} ({best})", peer, value / peer, interval=interval, over="seeds, of the difference in points",
        peer_std=peer_std, note=NOTE,
    )  # fmt: skip


def search(dataset: Dataset, seed: int, python: Path, folder: Path) -> dict[str, float]:
    """Return the precision of Falconet, and of each way of cleanlab."""
    noisy, wrong = plant(dataset, seed)
    loaded, _, probabilities = predict_held_out(noisy)
    assert len(loaded.kept) == len(wrong), "every sample can be read"
    count = int(wrong.sum())
    suspects = [index for index, _ in find_contradictions(probabilities, loaded.split.labels)]
    prepared = prepare_candidate(noisy, noisy.split("all"), choose_fixed(noisy, raw=True))
    path = folder / "predictions.npz"
    np.savez(path, features=to_dense(embed_split(prepared)), probabilities=probabilities, labels=loaded.split.labels,
             count=count, seed=seed)  # fmt: skip
    done = subprocess.run([python, PEER, path], stdout=subprocess.PIPE, text=True, check=True)
    rankings = {OURS: suspects[:count], **json.loads(done.stdout)}
    return {way: 100 * float(wrong[ranking].sum()) / count for way, ranking in rankings.items()}


def to_dense(features: Features) -> np.ndarray:
    """Return features as an array; of sparse ones the columns that any sample has."""
    if features.layout != torch.sparse_csr:
        return features.numpy()
    known, columns = torch.unique(features.col_indices(), return_inverse=True)
    rows = (len(features), len(known))
    return torch.sparse_csr_tensor(features.crow_indices(), columns, features.values(), rows).to_dense().numpy()


def plant(dataset: Dataset, seed: int) -> tuple[Dataset, np.ndarray]:
    """Return a data set in which some labels are wrong, and which of all its samples have one."""
    generator = np.random.default_rng(seed)
    total, classes = len(dataset.split("all")), len(dataset.classes)
    wrong = np.zeros(total, dtype=bool)
    wrong[generator.choice(total, size=round(NOISE * total), replace=False)] = True
    shift = np.where(wrong, generator.integers(1, classes, total), 0)
    splits, start = {}, 0
    for name, split in dataset.splits.items():
        splits[name] = replace(split, labels=(split.labels + shift[start : start + len(split)]) % classes)
        start += len(split)
    return replace(dataset, splits=splits), wrong


if __name__ == "__main__":
    main()

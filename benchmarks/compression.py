"""How small networks become at which accuracy: one row at a time, each a recipe that `falconet compress` runs.

A ratio is the dense network's parameters in single precision against all bytes of the coded file; accuracy is that of
the decoded network on the test split. Runs stay in `--runs` and go on where they stopped. Several runs have an interval
over seeds; one run has that of its loss over test samples, which says nothing of another seed. Where compression gains
accuracy, the dense network was not trained out, and the row is withdrawn.

    python benchmarks/compression.py --data-root FOLDER [--rows lenet5-200x resnet20-15x]

FOLDER holds MNIST/, cifar-10-batches-bin/ and banking77/, each where its row is wanted.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from record import Interval, Row, decide, decide_all, mean, run_json, save, seed_interval

ASSETS = Path(__file__).parent.parent / "tests" / "assets"
Found = dict[str, Any]
"""What `falconet compress --json` printed."""
RATIO, LOSS = "times smaller", "points lost"
"""Measures that a row may claim."""
UNTRAINED = "compression gained accuracy: the dense network was not trained out, so that this is no loss of compression"


@dataclass(frozen=True)
class Case:
    """A network on its data."""

    title: str
    source: str
    recipe: str
    """Of the compression."""
    training: str | None = None
    """The recipe that trains the dense network; None: it is there already."""
    model: Path | None = None
    several: bool = True
    """Whether there is one run for each seed."""


@dataclass(frozen=True)
class Evaluation:
    """Whether runs do what was wanted, and the interval that says so."""

    met: bool | None
    interval: Interval | None
    over: str


@dataclass(frozen=True)
class Wanted:
    """A budget, and what is to come of it."""

    case: Case
    flags: tuple[str, ...]
    target: str
    evaluate: Callable[[Sequence[Found]], Evaluation]
    literature: str | None = None
    peer: float | None = None
    """The literature's ratio."""
    claim: str = RATIO
    """What the target is about, and leads the row."""


def error(runs: Sequence[Found]) -> float:
    """Return the mean test error in percent."""
    return 100 * (1 - mean([run["accuracy_after"] for run in runs])[0])


def reaches(ratio: float, most: float) -> Callable[[Sequence[Found]], Evaluation]:
    """Return what decides whether all files are so many times smaller, at such a mean test error, in percent."""

    def evaluate(runs: Sequence[Found]) -> Evaluation:
        interval = seed_interval([100 * (1 - run["accuracy_after"]) for run in runs])
        met = decide_all(all(run["ratio"] >= ratio for run in runs), decide(error(runs), interval, most=most))
        return Evaluation(met, interval, "seeds, of the error")

    return evaluate


def loses(ratio: float, points: float) -> Callable[[Sequence[Found]], Evaluation]:
    """Return what decides whether all files are so many times smaller, at such a mean loss of accuracy, in points."""

    def evaluate(runs: Sequence[Found]) -> Evaluation:
        loss = evaluate_loss(runs, points)
        return replace(loss, met=decide_all(all(run["ratio"] >= ratio for run in runs), loss.met))

    return evaluate


def halves(points: float, speed: float) -> Callable[[Sequence[Found]], Evaluation]:
    """Return what decides whether half the MACs lose at most so many points and are so much faster in onnxruntime."""

    def evaluate(runs: Sequence[Found]) -> Evaluation:
        loss, speeds = evaluate_loss(runs, points), list_speeds(runs)
        faster = decide(mean(speeds)[0], seed_interval(speeds), least=speed)
        return replace(loss, met=decide_all(loss.met, faster))

    return evaluate


def evaluate_loss(runs: Sequence[Found], points: float) -> Evaluation:
    """Return whether runs lose at most so many points: by seeds, or a single one by the samples that it answers."""
    losses = [run["drop"] for run in runs]
    single = len(runs) == 1
    interval: Interval | None = tuple(runs[0]["drop_ci"]) if single else seed_interval(losses)
    over = f"{'test samples' if single else 'seeds'}, of the points lost"
    return Evaluation(decide(mean(losses)[0], interval, most=points), interval, over)


def list_speeds(runs: Sequence[Found]) -> list[float]:
    """Return how many times as fast each smaller network is in onnxruntime."""
    pairs = [(run["latencies_ms_before"], run["latencies_ms_after"]) for run in runs]
    return [before["onnxruntime"] / after["onnxruntime"] for before, after in pairs]


LENET300 = Case("LeNet-300-100, MNIST", "mnist", "mnist-lenet300-100", training="mnist-lenet300-100")
LENET5 = Case("LeNet-5-Caffe, MNIST", "mnist", "mnist-lenet5-caffe", training="mnist-lenet5-caffe")
RESNET = Case("ResNet-20, CIFAR-10", "cifar10", "cifar10-resnet20", model=ASSETS / "cifar10-resnet20", several=False)
HALVED = replace(RESNET, title=f"{RESNET.title}, half the MACs", recipe="cifar10-resnet20-channels")
TRANSFORMER = Case("Transformer, banking77", "banking77", "banking77-transformer", "text-transformer", several=False)

WANTED = {
    "lenet300-60x": Wanted(
        LENET300, ("--max-size", "17.7kB"), "60x at most 1.60 % error", reaches(60, 1.60),
        "Deep Compression, 40x at 1.58 %", 40,
    ),
    "lenet300-150x": Wanted(
        LENET300, ("--max-size", "7.1kB"), "150x at most 1.60 % error (goal)", reaches(150, 1.60),
        "soft weight sharing, 64x at 1.94 %", 64,
    ),
    "lenet5-200x": Wanted(
        LENET5, ("--max-size", "8.6kB"), "200x at most 0.74 % error", reaches(200, 0.74),
        "Deep Compression, 39x at 0.74 %", 39,
    ),
    "lenet5-600x": Wanted(
        LENET5, ("--max-size", "2.87kB"), "600x at most 0.69 % error (goal)", reaches(600, 0.69),
        "best known claim, 555x at 0.69 %", 555,
    ),
    "lenet5-1200x": Wanted(
        LENET5, ("--max-size", "1.43kB"), "1200x at most 0.96 % error (goal)", reaches(1200, 0.96),
        "best known claim, 1110x at 0.96 %", 1110,
    ),
    "resnet20-15x": Wanted(RESNET, ("--max-size", "71.8kB"), "15x at most 0.5 points lost", loses(15, 0.5)),
    "resnet20-30x": Wanted(RESNET, ("--max-size", "35.9kB"), "30x at most 0.5 points lost (goal)", loses(30, 0.5)),
    "resnet20-halved": Wanted(
        HALVED, ("--max-macs", "20.27M", "--max-size", "1MB"),
        "at most 0.5 points lost, 1.4x as fast in onnxruntime", halves(0.5, 1.4), claim=LOSS,
    ),
    "transformer-10x": Wanted(TRANSFORMER, ("--max-size", "368kB"), "10x at most 0.5 points lost", loses(10, 0.5)),
    "transformer-30x": Wanted(
        TRANSFORMER, ("--max-size", "122kB"), "30x at most 0.5 points lost (goal)", loses(30, 0.5)
    ),
}  # fmt: skip


def find_model(case: Case, seed: int, asked: argparse.Namespace) -> Path:
    """Return the folder of the dense network, trained where it is not there yet."""
    if case.model is not None:
        return case.model
    folder: Path = asked.runs / f"{case.training}-{seed}"
    if not (folder / "metrics.json").is_file():
        run_json("train", find_source(case, asked), "--recipe", str(case.training), "--seed", str(seed), "--resume",
                 "--out", str(folder), "--data-root", str(asked.data_root))  # fmt: skip
    return folder


def find_source(case: Case, asked: argparse.Namespace) -> str:
    """Return the data as the verbs take them."""
    folder = asked.data_root / case.source
    return str(folder) if case.source == "banking77" else case.source


def run(name: str, seed: int, asked: argparse.Namespace) -> Found:
    """Return what one budget came to, from the file of an earlier run or by searching, and keep it.

    Budgets of one network share the folder of their searches: what several need is carried out once.
    """
    kept = asked.runs / f"{name}-{seed}.json"
    if not kept.is_file():
        wanted = WANTED[name]
        out = asked.runs / f"small-{wanted.case.recipe}-{seed}"
        model, source = find_model(wanted.case, seed, asked), find_source(wanted.case, asked)
        found = run_json("compress", str(model), source, "--recipe", wanted.case.recipe, "--out", str(out), "--resume",
                         "--data-root", str(asked.data_root), *wanted.flags)  # fmt: skip
        kept.write_text(json.dumps(found))
    found = json.loads(kept.read_text())
    return dict(found)


def describe(wanted: Wanted, runs: Sequence[Found]) -> list[Row]:
    """Return the rows of one budget: what is claimed first, then the rest, and whether it is faster."""
    measured = {
        RATIO: ([run["ratio"] for run in runs], "x"),
        "test error": ([100 * (1 - run["accuracy_after"]) for run in runs], "%"),
        LOSS: ([run["drop"] for run in runs], "points"),
    }
    if all("onnxruntime" in run["latencies_ms_before"] for run in runs):
        measured["speed in onnxruntime, of the dense network's"] = (list_speeds(runs), "x")
    sizes = ", ".join(f"{run['bytes_after']:,}" for run in runs)
    first = f"{wanted.case.title}: {wanted.claim} at {error(runs):.2f} % test error ({sizes} bytes)"
    value, spread = mean(measured[wanted.claim][0])
    found = wanted.evaluate(runs)
    # Where the accuracy is missed, a ratio to the literature's bytes would compare what is not alike.
    ratio = value / wanted.peer if wanted.peer and found.met is not False else None
    row = Row(first, value, measured[wanted.claim][1], len(runs), spread, wanted.target, found.met, wanted.literature,
              wanted.peer, ratio, interval=found.interval, over=found.over,
              withdrawn=UNTRAINED if mean(measured[LOSS][0])[0] < 0 else None)  # fmt: skip
    del measured[wanted.claim]
    rest = [
        Row(f"the same: {name}", mean(values)[0], unit, len(runs), mean(values)[1])
        for name, (values, unit) in measured.items()
    ]
    return [row, *rest]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", choices=WANTED, default=list(WANTED), metavar="ROW")
    parser.add_argument("--runs", type=Path, default=Path("runs/compression"))
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    asked.runs.mkdir(parents=True, exist_ok=True)
    for name in asked.rows:
        wanted = WANTED[name]
        runs = [run(name, seed, asked) for seed in range(asked.seeds if wanted.case.several else 1)]
        packages = ["constriction", *(["onnxruntime"] if wanted.case is HALVED else [])]
        save(f"compression-{name}", describe(wanted, runs), packages)


if __name__ == "__main__":
    main()

"""What `falconet train SOURCE` alone comes to, against what a practitioner writes by hand, on the same splits.

The rows: `tasks`, twelve data sets against scikit-learn (peers/sklearn_by_hand.py); `finetuned`, photographs against
the same published weights fine-tuned in plain torch and by fastai (peers/torch_finetune.py, fastai_finetune.py);
`bars`, accuracies that were asked for; `useful`, seconds to a first useful model; `folder`, seconds from the shell to
the report; `lenet5`, three epochs against a loop in plain torch. Whatever chooses, on either side, sees validation data
alone.

Each run is appended to results/defaults-runs.jsonl when it ends, and stands as long as the code that it came from does:
an interrupted benchmark goes on, and results/defaults.json is made of what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from record import (
    CODE,
    RESULTS,
    Row,
    compare_rounds,
    decide,
    falconet,
    find_change,
    latest_runs,
    mean,
    save,
    seed_interval,
)
from sources import SOURCES, copy_some, write_source
from training import RUNNING, THREADS, default_folder, prepare_environment

HERE = Path(__file__).parent
PEERS = HERE / "peers"
RUNS = RESULTS / "defaults-runs.jsonl"
PHOTOGRAPHS, FEW_IMAGES = "sign-digits", "cifar10-50"
FINETUNED = (PHOTOGRAPHS, "sign-digits-20", FEW_IMAGES)
FINETUNERS = ("fine-tuned by hand", "fastai")
"""Methods that begin with the weights that falconet begins with."""
SCRATCH = (
    "--model", "resnet20", "--set", "model.options.width=32", "--loss", "cosine", "--epochs", "300",
    "--set", "training.optimizer=sgd",
    "--set", "training.learning_rate=0.1", "--set", "training.weight_decay=0.003", "--set", "training.batch_size=32",
    "--set", "training.restore=last", "--set", "augmentation.flip_horizontal=0.5", "--set", "augmentation.shift=0.125",
    "--set", "augmentation.trivial=true",
)  # fmt: skip
"""How a network is trained that begins from nothing. Its width, loss, epochs and augmentation were chosen on another
draw of training images, by 3,000 further ones: 16 maps came to 53.8 % after 160 epochs and to 57.3 % after 500, and to
54.7 % with erased rectangles besides; 32 maps came to 58.1 % after 300."""
FOLDER, FOLDER_COUNT = "300 photographs", 30
"""Photographs of each of ten classes, without splits."""
LENET5 = "digits, lenet5, 3 epochs"
BYTECODE = default_folder() / "bytecode"
"""Kept between runs, as that of installed packages is, wherever pip was told to make none."""
USEFUL = 0.95
"""Share of the best validation accuracy, of either side, at which a model counts as useful."""
Run = dict[str, Any]


@dataclass(frozen=True)
class Bar:
    """An accuracy that was asked for, in percent."""

    task: str
    method: str
    least: float
    goal: float


BARS = (
    Bar("banking77", "falconet, refit", 93, 93.5),
    Bar("banking77-10", "falconet, refit", 84.5, 86),
    Bar(FEW_IMAGES, "falconet", 70, 75),
    Bar(FEW_IMAGES, "falconet, from scratch", 58, 62),
)


@dataclass(frozen=True)
class Bench:
    """What the command line asks for."""

    data_root: Path
    environments: Path
    tasks: tuple[str, ...]
    seeds: int
    rounds: int
    keep: bool


@dataclass(frozen=True)
class Method:
    """One side of a comparison."""

    run: Callable[[Bench, str, int, Path], Run]
    """From a task, a seed and an empty folder to what was found."""
    code: tuple[str, ...]
    """What its figures depend on, as git takes paths."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, help="folder that holds sign-digits/, banking77/, ...")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), help="measure only these")
    parser.add_argument("--tasks", nargs="+", choices=list(SOURCES), default=list(SOURCES), help="and of these only")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5, help="of what is timed, ours and the peer's in turns")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--keep", action="store_true", help="let runs of other code stand, too")
    parser.add_argument("--environments", type=Path, default=default_folder(), help="where those of peers are kept")
    arguments = parser.parse_args()
    os.environ.update(dict.fromkeys(THREADS, str(arguments.threads)))
    bench = Bench(arguments.data_root, arguments.environments, tuple(arguments.tasks),
                  arguments.seeds, arguments.rounds, arguments.keep)  # fmt: skip
    for name in arguments.rows:
        ROWS[name](bench)
    save("defaults", summarize(list(latest_runs(RUNS).values())))


# What is measured


def measure_tasks(bench: Bench) -> None:
    measure(bench, ("by hand", "falconet"), bench.tasks, bench.seeds)


def measure_finetuned(bench: Bench) -> None:
    tasks = [task for task in FINETUNED if task in bench.tasks]
    measure(bench, (*FINETUNERS, "falconet"), tasks, bench.seeds)


def measure_bars(bench: Bench) -> None:
    for bar in BARS:
        if bar.task in bench.tasks:
            measure(bench, (bar.method,), (bar.task,), bench.seeds)


def measure_useful(bench: Bench) -> None:
    measure(bench, ("first useful", "first useful, by hand"), (PHOTOGRAPHS,), bench.seeds)


def measure_folder(bench: Bench) -> None:
    measure(bench, ("folder",), (FOLDER,), bench.seeds)


def measure_lenet5(bench: Bench) -> None:
    # Both once unrecorded, so that no round pays for reading libraries from the disk.
    for method in ("lenet5", "lenet5 in plain torch"):
        with tempfile.TemporaryDirectory() as scratch:
            METHODS[method].run(bench, LENET5, 0, Path(scratch))
    measure(bench, ("lenet5", "lenet5 in plain torch"), (LENET5,), bench.rounds)


ROWS: Mapping[str, Callable[[Bench], None]] = {
    "tasks": measure_tasks,
    "finetuned": measure_finetuned,
    "bars": measure_bars,
    "useful": measure_useful,
    "folder": measure_folder,
    "lenet5": measure_lenet5,
}


def measure(bench: Bench, methods: Sequence[str], tasks: Sequence[str], seeds: int) -> None:
    """Run methods in turns on each task for each seed, but for what stands already, and record each run at once."""
    for task in tasks:
        for seed in range(seeds):
            for name in methods:
                method = METHODS[name]
                commit, dirty = find_change(method.code)
                old = latest_runs(RUNS).get((name, task, seed))
                if old and (bench.keep or (old["commit"] == commit and not old["dirty"] and not dirty)):
                    continue
                with tempfile.TemporaryDirectory() as scratch:
                    facts = method.run(bench, task, seed, Path(scratch))
                run = {"method": name, "task": task, "seed": seed, "commit": commit, "dirty": dirty, **facts}
                with RUNS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(run) + "\n")
                print(json.dumps({key: value for key, value in run.items() if key != "looks"}), flush=True)


def time_command(command: Sequence[str], scratch: Path) -> tuple[str, Run]:
    """Run a command with an empty cache; return what it printed, its seconds, and how busy the machine was."""
    environment = {**os.environ, "FALCONET_CACHE": str(scratch / "cache"), "PYTHONPYCACHEPREFIX": str(BYTECODE)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, {
        "seconds": round(seconds, 2), "processor_seconds": round(processor, 2),
        "threads": int(os.environ["OMP_NUM_THREADS"]), "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip


def train(scratch: Path, *arguments: str) -> Run:
    """Run `falconet train ... --json` from the shell to the report."""
    command = falconet("train", *arguments, "--out", str(scratch / "run"), "--json")
    printed, times = time_command(command, scratch)
    found = json.loads(printed)
    tried = {row["model"]: row["val_accuracy"] for row in found["leaderboard"]}
    test = found["test"]
    return {
        "model": found["model"], "accuracy": test["accuracy"], "macro_f1": test["macro_f1"], "n": test["n"], **times,
        "epochs": found["epochs"], "best_epoch": found["best_epoch"], "val_accuracy": found["val"]["accuracy"],
        "candidates": tried,
    }  # fmt: skip


def ask(bench: Bench, environment: str | None, scratch: Path, script: str, *arguments: str) -> Run:
    """Run a peer's script; return its answer, the last line of its output."""
    python = prepare_environment(bench.environments, environment) if environment else RUNNING
    started = ("--started", repr(time.time()))
    printed, times = time_command([str(python), str(PEERS / f"{script}.py"), *arguments, *started], scratch)
    answer: Run = json.loads(printed.splitlines()[-1])
    return {**answer, **times}


def make_source(bench: Bench, task: str, seed: int, scratch: Path) -> Path:
    """Write a task's splits."""
    source, root = SOURCES[task], bench.data_root
    if source.bundled:
        python = prepare_environment(bench.environments, "sklearn")
        code = "from importlib.util import find_spec; print(find_spec('aeon').submodule_search_locations[0])"
        found = subprocess.run([str(python), "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        root = Path(found) / "datasets" / "data"
    return write_source(source, root, seed, scratch / "data")


def run_falconet(bench: Bench, task: str, seed: int, scratch: Path) -> Run:
    return train(scratch, str(make_source(bench, task, seed, scratch)), "--seed", str(seed))


def run_refit(bench: Bench, task: str, seed: int, scratch: Path) -> Run:
    return train(scratch, str(make_source(bench, task, seed, scratch)), "--refit", "--seed", str(seed))


def run_scratch(bench: Bench, task: str, seed: int, scratch: Path) -> Run:
    return train(scratch, str(make_source(bench, task, seed, scratch)), *SCRATCH, "--seed", str(seed))


def run_sklearn(bench: Bench, task: str, seed: int, scratch: Path) -> Run:
    told = ("--source", str(make_source(bench, task, seed, scratch)), "--seed", str(seed))
    return ask(bench, "sklearn", scratch, "sklearn_by_hand", *told, "--kind", SOURCES[task].kind)


def run_finetuning(bench: Bench, task: str, seed: int, scratch: Path, *more: str) -> Run:
    told = ("--source", str(make_source(bench, task, seed, scratch)), "--seed", str(seed))
    return ask(bench, None, scratch, "torch_finetune", *told, *more)


def run_fastai(bench: Bench, task: str, seed: int, scratch: Path) -> Run:
    told = ("--source", str(make_source(bench, task, seed, scratch)), "--seed", str(seed))
    return ask(bench, "fastai", scratch, "fastai_finetune", *told)


def run_until_useful(bench: Bench, task: str, seed: int, scratch: Path) -> Run:
    source = make_source(bench, task, seed, scratch)
    told = ("--source", str(source), "--seed", str(seed), "--out", str(scratch / "run"))
    return note_best(ask(bench, None, scratch, "falconet_looks", *told))


def finetune_until_useful(bench: Bench, task: str, seed: int, scratch: Path) -> Run:
    return note_best(run_finetuning(bench, task, seed, scratch, "--every", "5"))


def note_best(answer: Run) -> Run:
    """Add the best validation accuracy that a run was seen with."""
    return {**answer, "val_accuracy": max(look["accuracy"] for look in answer["looks"])}


def train_folder(bench: Bench, task: str, seed: int, scratch: Path) -> Run:
    copy_some(bench.data_root / "sign-digits", FOLDER_COUNT, scratch / "photos")
    return train(scratch, str(scratch / "photos"), "--seed", str(seed))


def train_lenet5(bench: Bench, task: str, seed: int, scratch: Path) -> Run:
    return train(scratch, "digits", "--model", "lenet5", "--epochs", "3", "--seed", str(seed))


def loop_lenet5(bench: Bench, task: str, seed: int, scratch: Path) -> Run:
    digits = str(files("falconet.data") / "digits.npz")
    return ask(bench, None, scratch, "torch_digits", "--source", digits, "--seed", str(seed), "--epochs", "3")


SPLITS = "benchmarks/sources.py"
OURS = (CODE[0], SPLITS)


def list_code(script: str, *more: str) -> tuple[str, ...]:
    """Return what a peer's figures depend on."""
    return SPLITS, *(f"benchmarks/peers/{name}" for name in ("splits.py", f"{script}.py", *more))


METHODS: Mapping[str, Method] = {
    "falconet": Method(run_falconet, OURS),
    "falconet, refit": Method(run_refit, OURS),
    "falconet, from scratch": Method(run_scratch, (*OURS, "benchmarks/defaults.py")),
    "by hand": Method(run_sklearn, list_code("sklearn_by_hand", "requirements-sklearn.txt")),
    "fine-tuned by hand": Method(run_finetuning, list_code("torch_finetune")),
    "fastai": Method(run_fastai, list_code("fastai_finetune", "torch_finetune.py", "requirements-fastai.txt")),
    "first useful": Method(run_until_useful, (*OURS, "benchmarks/peers/falconet_looks.py")),
    "first useful, by hand": Method(finetune_until_useful, list_code("torch_finetune")),
    "folder": Method(train_folder, OURS),
    "lenet5": Method(train_lenet5, OURS),
    "lenet5 in plain torch": Method(loop_lenet5, list_code("torch_digits")),
}


# What it comes to


def summarize(runs: Sequence[Run]) -> list[Row]:
    """Return the rows of all that there are runs of."""
    rows = [compare_accuracy(runs, task, "by hand") for task in SOURCES]
    rows += [compare_accuracy(runs, task, peer) for peer in FINETUNERS for task in FINETUNED]
    rows += [hold_against(runs, bar) for bar in BARS]
    rows += [
        compare_seconds(
            runs, PHOTOGRAPHS, ("first useful", "first useful, by hand"),
            f"2,062 photographs: time to {USEFUL:.0%} of the best validation accuracy, from the shell", 0.5, 0.2,
        ),
        time_folder(runs),
        compare_seconds(
            runs, LENET5, ("lenet5", "lenet5 in plain torch"), f"{LENET5}: from the shell to the report", 1.5, 1.1
        ),
    ]  # fmt: skip
    return [row for row in rows if row is not None]


def pick(runs: Sequence[Run], task: str, *methods: str) -> list[list[Run]]:
    """Return each method's runs of a task, those of seeds that all of them have, in the order of seeds."""
    found = [{run["seed"]: run for run in runs if (run["task"], run["method"]) == (task, name)} for name in methods]
    seeds = sorted(set.intersection(*(set(part) for part in found)))
    return [[part[seed] for seed in seeds] for part in found]


def percent(runs: Sequence[Run]) -> list[float]:
    return [100 * run["accuracy"] for run in runs]


def compare_accuracy(runs: Sequence[Run], task: str, peer: str) -> Row | None:
    """Return the test accuracy of a task beside a peer's, by the differences of runs with the same seed."""
    ours, peers = pick(runs, task, "falconet", peer)
    if not ours:
        return None
    (value, std), (peer_value, peer_std) = mean(percent(ours)), mean(percent(peers))
    interval = seed_interval([first - second for first, second in zip(percent(ours), percent(peers), strict=True)])
    kept, theirs = (", ".join(dict.fromkeys(run["model"] for run in part)) for part in (ours, peers))
    times = describe_times(ours, peers)
    return Row(
        f"{SOURCES[task].title}: test accuracy of `falconet train` alone", value, "%", len(ours), std,
        f"no less than {peer}",
        decide(value - peer_value, interval, least=0.0), f"{peer} ({peers[0]['library']})", peer_value,
        value / peer_value, interval=interval, over="seeds, of the difference", peer_std=peer_std,
        note=f"kept: {kept}; {peer}: {theirs}{times}{name_commits(ours)}",
    )  # fmt: skip


def describe_times(ours: Sequence[Run], peers: Sequence[Run]) -> str:
    """Return the mean seconds of both sides, but of processors alone where other work took part of the machine."""
    busy = any(run["load"] > run["threads"] + BESIDE for part in (ours, peers) for run in part)
    seconds, processor = (
        " and ".join(f"{mean([run[key] for run in part])[0]:.0f}" for part in (ours, peers))
        for key in ("seconds", "processor_seconds")
    )
    alone = "; seconds unknown, as the machine did other work too" if busy else f"; {seconds} s"
    return f"{alone}, {processor} s of processors"


BESIDE = 0.5
"""Load beyond a run's own threads at which its seconds say nothing any more."""


def hold_against(runs: Sequence[Run], bar: Bar) -> Row | None:
    """Return the test accuracy of a task beside what was asked for."""
    (ours,) = pick(runs, bar.task, bar.method)
    if not ours:
        return None
    value, std = mean(percent(ours))
    interval = seed_interval(percent(ours))
    how = {
        "falconet": "`falconet train` alone",
        "falconet, refit": "`falconet train --refit`, which learns from all labeled samples,",
        "falconet, from scratch": f"`{SCRATCH[1]}` from scratch (`SCRATCH` of the script)",
    }[bar.method]
    kept = ", ".join(dict.fromkeys(run["model"] for run in ours))
    return Row(
        f"{SOURCES[bar.task].title}: test accuracy of {how}", value, "%", len(ours), std,
        f"at least {bar.least:g} % (goal {bar.goal:g} %)", decide(value, interval, least=bar.least), interval=interval,
        over="seeds", note=f"kept: {kept}{name_commits(ours)}",
    )  # fmt: skip


def time_alike(own: Run, other: Run) -> tuple[float, float]:
    """Return the seconds of two runs; of those that were looked at, until both were at one share of the better's best.

    One that never comes so far counts as long as it took.
    """
    if "looks" not in own:
        return own["seconds"], other["seconds"]
    enough = USEFUL * max(look["accuracy"] for run in (own, other) for look in run["looks"])

    def until(run: Run) -> float:
        times = (look["seconds"] for look in run["looks"] if look["accuracy"] >= enough)
        return float(next(times, run["seconds"]))

    return until(own), until(other)


def compare_seconds(
    runs: Sequence[Run], task: str, methods: tuple[str, str], name: str, most: float, goal: float
) -> Row | None:
    """Return the seconds of a method beside a peer's, by the ratios of rounds."""
    found = pick(runs, task, *methods)
    pairs = [time_alike(own, other) for own, other in zip(*found, strict=True)]
    if not pairs:
        return None
    ours, peers = ([pair[side] for pair in pairs] for side in (0, 1))
    (value, std), (peer_value, peer_std) = mean(ours), mean(peers)
    ratio, interval = compare_rounds(ours, peers)
    reached = [
        f"{mean([100 * run['val_accuracy'] for run in part])[0]:.1f} %" for part in found if "val_accuracy" in part[0]
    ]
    return Row(
        name, value, "s", len(ours), std, f"at most {most:g}x of {methods[1]} (goal {goal:g}x)",
        decide(ratio, interval, most=most), methods[1], peer_value, ratio, interval=interval,
        over="rounds, of the ratio", peer_std=peer_std,
        note=f"validation accuracy {' and '.join(reached)}{name_commits(found[0])}",
    )  # fmt: skip


def time_folder(runs: Sequence[Run]) -> Row | None:
    """Return the seconds from the shell to the report of a small folder."""
    (ours,) = pick(runs, FOLDER, "folder")
    if not ours:
        return None
    seconds = [run["seconds"] for run in ours]
    (value, std), interval = mean(seconds), seed_interval(seconds)
    accuracy = mean(percent(ours))[0]
    return Row(
        f"{FOLDER}: `falconet train` alone, from the shell to the report", value, "s", len(ours), std,
        "at most 45 s (goal 20 s)", decide(value, interval, most=45.0), interval=interval, over="seeds",
        note=f"{ours[0]['threads']} threads; test accuracy {accuracy:.1f} %{name_commits(ours)}",
    )  # fmt: skip


def name_commits(runs: Sequence[Run]) -> str:
    """Return what is to be said where runs are not all of one commit."""
    commits = dict.fromkeys(run["commit"][:7] + (" and changes to it" if run["dirty"] else "") for run in runs)
    return f"; runs of commit {', '.join(commits)}"


if __name__ == "__main__":
    main()

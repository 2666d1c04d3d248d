"""How fast networks train: against Keras, a PyTorch tutorial, fastai and Lightning, and against this machine itself.

Five parts, each recorded by itself: images a second in one number format (`throughput`) and as each library does it by
default (`defaults`), seconds to a test accuracy (`target`), the share of the machine's matrix-product rate that
ResNet-18 reaches (`matmul`), and what the time of a training step goes to (`profile`). Falconet and a peer take turns,
each time in new processes. A peer runs in an environment of its own, which is made on first use.

Peers run scripts as teaching articles write them, with their libraries' defaults. In `target` a recipe that was tuned
for the race meets Keras's script, which was not; what tuned it must not have been the test split.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record import Row, compare_rounds, decide, mean, save

from falconet import FalconetError
from falconet.planning import load_recipe

HERE = Path(__file__).parent
PEERS = HERE / "peers"
RUNNING = Path(sys.executable)
THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
PARAMS = 184_586
"""Of `lenet_relu`, in whatever library."""
AIM = 0.99
LAST_EPOCH = 30
"""By which Keras has long reached AIM."""
SHARE, SHARE_GOAL = 0.5, 0.7
UNTUNED = "the peer's script as its tutorials have it"
TUNED = f"a tuned recipe against a script of {PARAMS:,} parameters with its library's defaults"
RESNET = ("resnet18", "--shape", "3", "32", "32", "--batch-size", "128", "--steps", "10", "--precision")
PROFILED = {
    "lenet_relu, fp32": ("lenet_relu", "--shape", "1", "28", "28", "--batch-size", "64", "--precision", "fp32"),
    "resnet18, fp32": (*RESNET, "fp32"),
    "resnet18, bf16": (*RESNET, "bf16"),
}
"""What the steps of `throughput` and `matmul` are, for `step_profile`."""


@dataclass(frozen=True)
class Peer:
    """What falconet is compared with: a script, in the environment that a file of requirements describes."""

    script: str
    requirements: str | None
    """None: the running environment."""
    least: float
    """The ratio that is asked for."""
    goal: float


KERAS = Peer("keras_script", "keras", 1.15, 1.5)
THROUGHPUT_PEERS = (
    KERAS,
    Peer("torch_tutorial", None, 2, 2.5),
    Peer("fastai_learner", "fastai", 1.3, 1.6),
    Peer("lightning_trainer", "lightning", 1.3, 1.6),
)
ON_RUNNING_TORCH = ("fastai", "lightning", "onnxruntime")
"""Environments that see the running one's packages, so that torch is not installed again."""


@dataclass(frozen=True)
class Bench:
    """What the command line asks for."""

    data_root: Path
    environments: Path
    repetitions: int
    epochs: int
    recipe: str
    every: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True, help="folder that holds MNIST/raw, its files unpacked")
    parser.add_argument("--part", choices=list(PARTS), help="measure only this")
    parser.add_argument("--environments", type=Path, default=default_folder(), help="where those of peers are kept")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each library")
    parser.add_argument("--repetitions", type=int, help="of each comparison; default: 5 seeds in `target`, else 3")
    parser.add_argument("--epochs", type=int, default=3, help="of which all but the first are timed")
    parser.add_argument("--recipe", default="mnist-fast", help="falconet's in `target`")
    parser.add_argument("--every", type=int, default=50, help="steps between two looks at test accuracy in `target`")
    parser.add_argument("--limit", type=int, help="try with so many samples a split; nothing is recorded then")
    arguments = parser.parse_args()
    if arguments.epochs < 2:
        parser.error("--epochs: wanted 2 or more, since the first is not timed")
    parts = [arguments.part] if arguments.part else list(PARTS)
    if "target" in parts:
        try:
            load_recipe(arguments.recipe)
        except FalconetError as error:
            parser.error(str(error))
    os.environ.update(dict.fromkeys(THREADS, str(arguments.threads)), TF_CPP_MIN_LOG_LEVEL="2")
    with tempfile.TemporaryDirectory() as scratch:
        for name in parts:
            publish(f"training-{name}", PARTS[name](prepare(arguments, name, Path(scratch))), arguments.limit is None)


def prepare(arguments: argparse.Namespace, part: str, scratch: Path) -> Bench:
    """Return what a part is to measure with."""
    limit, repetitions = arguments.limit, arguments.repetitions or (5 if part == "target" else 3)
    root = cut(arguments.data_root, scratch, limit) if limit else arguments.data_root
    return Bench(root, arguments.environments, repetitions, arguments.epochs, arguments.recipe, arguments.every)


def publish(name: str, rows: Sequence[Row], record: bool) -> None:
    """Record rows, or only print them."""
    if record:
        save(name, rows)
    else:
        print(*rows, sep="\n")


def default_folder() -> Path:
    """Return a folder of the user's caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "falconet" / "benchmarks"


def cut(root: Path, scratch: Path, limit: int) -> Path:
    """Return a folder with the first `limit` samples of each of MNIST's splits."""
    folder = scratch / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for path in (root / "MNIST" / "raw").glob("*-ubyte"):
        header, size = (16, 784) if "images" in path.name else (8, 1)
        content = path.read_bytes()
        kept = content[:4] + limit.to_bytes(4, "big") + content[8 : header + limit * size]
        (folder / path.name).write_bytes(kept)
    return scratch


def compare_throughput(bench: Bench) -> list[Row]:
    """Time epochs of `lenet_relu` in float32, in batches of 64, against each peer."""
    rows = []
    for peer in THROUGHPUT_PEERS:
        name = "MNIST, lenet_relu, fp32, batches of 64: images trained a second"
        rows.append(compare_epochs(bench, name, peer, "fp32"))
    return rows


def compare_defaults(bench: Bench) -> list[Row]:
    """Time epochs of `lenet_relu` in batches of 64, otherwise with each library's defaults."""
    name = "MNIST, lenet_relu, defaults, batches of 64: images trained a second"
    return [compare_epochs(bench, name, Peer(KERAS.script, KERAS.requirements, 2, 3), "auto")]


def compare_epochs(bench: Bench, name: str, peer: Peer, precision: str) -> Row:
    """Let falconet and a peer train in turns; a process counts as the mean rate of its epochs behind the first."""
    python = find_python(bench, peer)
    rates: tuple[list[float], list[float]] = ([], [])
    libraries = ["", ""]
    for seed in range(bench.repetitions):
        options = ("--epochs", str(bench.epochs), "--seed", str(seed))
        answers = (
            run(bench, RUNNING, "falconet_fit", *options, "--precision", precision),
            run(bench, python, peer.script, *options),
        )
        for index, answer in enumerate(answers):
            assert answer["params"] == PARAMS, f"{answer['library']}: {answer['params']} parameters"
            rates[index].append(mean(answer["rates"])[0])
            libraries[index] = answer["library"]
    (value, std), (peer_value, peer_std) = (mean(part) for part in rates)
    ratio, interval = compare_rounds(*rates)
    return Row(
        name=name,
        value=value,
        unit="images/s",
        n=bench.repetitions,
        std=std,
        target=f"{peer.least:g}x {libraries[1]} (goal {peer.goal:g}x)",
        met=decide(ratio, interval, least=peer.least),
        peer=libraries[1],
        peer_value=peer_value,
        ratio=ratio,
        params=PARAMS,
        interval=interval,
        over="repetitions, of the ratio",
        peer_std=peer_std,
        note=UNTUNED,
    )


def compare_races(bench: Bench) -> list[Row]:
    """Time how long falconet's recipe and Keras's script train until AIM, and how long that is from process start.

    The test split is looked at every so many steps, while the clock stands still.
    """
    python = find_python(bench, KERAS)
    # Both up to their first look, so that no race pays for reading libraries from the disk.
    race(bench, python, seed=0, aim=0)
    training: tuple[list[float], list[float]] = ([], [])
    whole: tuple[list[float], list[float]] = ([], [])
    for seed in range(bench.repetitions):
        answers = race(bench, python, seed, AIM)
        for index, answer in enumerate(answers):
            seconds = find_aim(answer)
            training[index].append(seconds)
            whole[index].append(answer["before"] + seconds)
    name = f"MNIST, recipe {bench.recipe}: time to {AIM:.1%} of the test split, looked at every {bench.every} steps"
    ours, peer = answers
    return [
        compare_seconds(f"{name}; of training", training, ours["params"], peer["library"], 5, 10),
        compare_seconds(f"{name}; from process start", whole, ours["params"], peer["library"], 3, 6),
    ]


def race(bench: Bench, keras: Path, seed: int, aim: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Let falconet's recipe and Keras's script train up to a test accuracy, one after the other."""
    options = ("--every", str(bench.every), "--aim", str(aim), "--seed", str(seed))
    return (
        run(bench, RUNNING, "falconet_recipe", *options, "--recipe", bench.recipe),
        run(bench, keras, KERAS.script, *options, "--epochs", str(LAST_EPOCH)),
    )


def find_aim(answer: dict[str, Any]) -> float:
    """Return the seconds of training until AIM, linear in steps between the first look that saw it and the one before.

    Exits where none did: such a run has no time that could count.
    """
    looks = answer["looks"]
    found = next((index for index, look in enumerate(looks) if look["accuracy"] >= AIM), None)
    if found is None:
        seen = max((look["accuracy"] for look in looks), default=0.0)
        raise SystemExit(f"{answer['library']}: wanted {AIM:.1%} of the test split, reached {seen:.2%}")
    later = looks[found]
    if found == 0:
        return float(later["seconds"])
    earlier = looks[found - 1]
    share = (AIM - earlier["accuracy"]) / (later["accuracy"] - earlier["accuracy"])
    return float(earlier["seconds"] + share * (later["seconds"] - earlier["seconds"]))


def compare_seconds(
    name: str, seconds: tuple[list[float], list[float]], params: int, library: str, least: float, goal: float
) -> Row:
    """Return the row of falconet's seconds against a peer's."""
    (value, std), (peer_value, peer_std) = (mean(part) for part in seconds)
    ratio, interval = compare_rounds(seconds[1], seconds[0])
    target = f"{least:g}x {library} (goal {goal:g}x)"
    met = decide(ratio, interval, least=least)
    return Row(name, value, "s", len(seconds[0]), std, target, met, library, peer_value, ratio, params,
               interval=interval, over="seeds, of the ratio", peer_std=peer_std, note=TUNED)  # fmt: skip


def measure_shares(bench: Bench) -> list[Row]:
    """Measure the rate of ResNet-18's training steps and that of matrix products, in turns, in both formats."""
    found: dict[str, list[dict[str, Any]]] = {"fp32": [], "bf16": []}
    for _ in range(bench.repetitions):
        for precision, answers in found.items():
            answers.append(execute(RUNNING, HERE / "matrix_rate.py", "--precision", precision))
    return [describe_share(precision, answers) for precision, answers in found.items()]


def describe_share(precision: str, answers: Sequence[dict[str, Any]]) -> Row:
    """Return the row of one format."""
    steps, products = ([answer[key] / 1e9 for answer in answers] for key in ("step", "product"))
    (value, std), (peer_value, peer_std) = mean(steps), mean(products)
    share, interval = compare_rounds(steps, products)
    return Row(
        name=f"resnet18 with the small stem at 32x32, {precision}, batches of 128: rate of a training step",
        value=value,
        unit="GFLOP/s",
        n=len(answers),
        std=std,
        target=f"{SHARE:g}x of torch.mm (goal {SHARE_GOAL:g}x)",
        met=decide(share, interval, least=SHARE),
        peer=f"torch.mm of 4096x4096, {precision}",
        peer_value=peer_value,
        ratio=share,
        params=answers[0]["params"],
        macs=answers[0]["macs"],
        interval=interval,
        over="repetitions, of the ratio",
        peer_std=peer_std,
    )


def profile_steps(bench: Bench) -> list[Row]:
    """Measure the share of a training step's time that goes to each kind of operation."""
    rows = []
    for title, (model, *options) in PROFILED.items():
        answers = [execute(RUNNING, HERE / "step_profile.py", model, *options) for _ in range(bench.repetitions)]
        for kind in answers[0]:
            value, std = mean([100 * answer[kind] for answer in answers])
            rows.append(Row(f"{title}: {kind}", value, "%", len(answers), std))
    return rows


PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "throughput": compare_throughput,
    "defaults": compare_defaults,
    "target": compare_races,
    "matmul": measure_shares,
    "profile": profile_steps,
}


def find_python(bench: Bench, peer: Peer) -> Path:
    """Return the Python that a peer runs in."""
    return prepare_environment(bench.environments, peer.requirements) if peer.requirements else RUNNING


def run(bench: Bench, python: Path, script: str, *options: str) -> dict[str, Any]:
    """Run a program on MNIST."""
    started = ("--started", repr(time.time()))
    return execute(python, PEERS / f"{script}.py", "--data-root", str(bench.data_root), *options, *started)


def execute(python: Path, script: Path, *options: str) -> dict[str, Any]:
    """Run a program in a process of its own, with an empty cache; return its answer, the last line of its output."""
    with tempfile.TemporaryDirectory() as cache:
        command = [str(python), str(script), *options]
        environment = {**os.environ, "FALCONET_CACHE": cache}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(script.stem, *options, {key: value for key, value in result.items() if key != "looks"}, flush=True)
    return result


def prepare_environment(folder: Path, name: str) -> Path:
    """Return the Python of a peer's environment; make it where it is missing, or was made otherwise."""
    requirements = PEERS / f"requirements-{name}.txt"
    packages = sysconfig.get_path("purelib")
    # Appended, so that what the environment has itself comes first; an editable install is seen only this way.
    visible = f"import site; site.addsitedir({packages!r})\n"
    made_of = "\n".join([requirements.read_text(encoding="utf-8"), sys.version, visible])
    home = folder.absolute() / f"{name}-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"
    python, complete = home / "bin" / "python", home / "complete"
    if not complete.is_file():
        print(f"making the environment of {name} in {home}", flush=True)
        venv.create(home, clear=True, with_pip=True)
        options = ["--no-deps"] if name in ON_RUNNING_TORCH else []
        command = [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(requirements), *options]
        subprocess.run(command, check=True)
        if name in ON_RUNNING_TORCH:
            own = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
            (Path(own) / "running.pth").write_text(visible, encoding="utf-8")
        complete.touch()
    return python


if __name__ == "__main__":
    main()

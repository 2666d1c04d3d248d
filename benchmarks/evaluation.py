"""How fast networks evaluate: falconet's `evaluate` on MNIST's test split against onnxruntime, in one process by turns.

Both begin with the same raw images, uint8 in memory, and end with an evaluation of the logits. Falconet runs
`evaluate_split`, which prepares batches of 256 by torch. onnxruntime gets batches of 256 that NumPy has brought to
float32, divided by 255 and normalized in place, runs the same weights exported by `torch.onnx.export`, and hands its
logits to the same `evaluate_logits`. Both compute with the same number of threads. onnxruntime needs an environment of
its own, which sees the running one's packages and is made on first use.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from record import Row, compare_rounds, decide, mean, save
from training import default_folder, prepare_environment

BATCH = 256
FORMATS = {"fp32": 0.55, "bf16": 0.8}
"""The ratio to onnxruntime's fp32 that is asked for; the goal is 1."""
AGREEMENT = 0.999
"""Share of labels in bfloat16 that are those of float32."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True, help="folder that holds MNIST/raw")
    parser.add_argument("--environments", type=Path, default=default_folder(), help="where onnxruntime's is kept")
    parser.add_argument("--threads", type=int, default=1, help="of both")
    parser.add_argument("--rounds", type=int, default=7, help="of which means count")
    parser.add_argument("--epochs", type=int, default=1, help="of training before")
    parser.add_argument("--limit", type=int, help="try with so many images; nothing is recorded then")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        rows = compare(arguments)
        if arguments.limit:
            print(*rows, sep="\n")
        else:
            save("evaluation", rows)
        return
    python = prepare_environment(arguments.environments, "onnxruntime")
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    subprocess.run([str(python), __file__, *sys.argv[1:], "--inside"], check=True, env=environment)


def compare(arguments: argparse.Namespace) -> list[Row]:
    """Train a network, then let all evaluate it in turns."""
    import torch

    from falconet import load_artifact, load_dataset, train
    from falconet.evaluation import evaluate_split
    from falconet.evaluation.precision import compute_in
    from falconet.metrics import wilson_interval

    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        train("mnist", model="lenet_relu", epochs=arguments.epochs, out=run, data_root=arguments.data_root)
        artifact = load_artifact(run)
        torch.set_num_threads(arguments.threads)
        dataset = load_dataset("mnist", data_root=arguments.data_root)
        split = dataset.splits["test"]
        if arguments.limit:
            split = split.take(np.arange(arguments.limit))

        def evaluate_by(name: str) -> Any:
            with compute_in(name):
                return evaluate_split(artifact, split, "test", dataset)[1].logits

        contestants: dict[str, Callable[[], Any]] = {
            "onnxruntime": make_peer(artifact, split, arguments.threads, Path(scratch)),
            "fp32": lambda: evaluate_by("fp32"),
            "bf16": lambda: evaluate_by("bf16"),
        }
        logits = {name: call() for name, call in contestants.items()}
        rates = take_turns(contestants, len(split), arguments.rounds)
    difference = float(np.abs(logits["fp32"] - logits["onnxruntime"]).max())
    print(f"largest difference of logits in fp32: {difference:.2g}", flush=True)
    agreement = float((logits["bf16"].argmax(axis=1) == logits["fp32"].argmax(axis=1)).mean())
    rows = [describe(name, rates, least, arguments.threads) for name, least in FORMATS.items()]
    name = "MNIST, lenet_relu: labels in bf16 that are those of fp32"
    low, high = wilson_interval(round(agreement * len(split)), len(split))
    met = decide(agreement, (low, high), least=AGREEMENT)
    return [*rows, Row(name, 100 * agreement, "%", len(split), 0.0, "99.9 %", met, interval=(100 * low, 100 * high),
                       over="samples")]  # fmt: skip


def make_peer(artifact: Any, split: Any, threads: int, scratch: Path) -> Callable[[], Any]:
    """Return what lets onnxruntime evaluate a split."""
    import onnxruntime
    import torch

    from falconet.evaluation import evaluate_logits

    path = scratch / "model.onnx"
    sample = torch.zeros(2, *artifact.config.input.shape)
    shapes = {"x": {0: torch.export.Dim("batch")}}
    torch.onnx.export(artifact.model, (sample,), path, dynamo=True, dynamic_shapes=shapes, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name
    spec, images = artifact.config.input, split.samples.images
    channels = (1, -1, 1, 1)
    mean_, std = (np.array(part, dtype=np.float32).reshape(channels) for part in (spec.mean, spec.std))

    def run() -> Any:
        parts = []
        for start in range(0, len(images), BATCH):
            x = images[start : start + BATCH].transpose(0, 3, 1, 2).astype(np.float32)
            x /= 255
            x -= mean_
            x /= std
            parts.append(session.run(None, {entry: x})[0])
        logits = np.concatenate(parts)
        evaluate_logits(logits, split.labels, artifact.config.output.labels, "test")
        return logits

    return run


def take_turns(contestants: dict[str, Callable[[], Any]], count: int, rounds: int) -> dict[str, list[float]]:
    """Return the images a second of each, by round."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            started = time.perf_counter()
            call()
            rates[name].append(count / (time.perf_counter() - started))
    return rates


def describe(name: str, rates: dict[str, list[float]], least: float, threads: int) -> Row:
    """Return the row of one number format; the ratio is the mean of those within a round."""
    ratio, interval = compare_rounds(rates[name], rates["onnxruntime"])
    (value, std), (peer_value, peer_std) = mean(rates[name]), mean(rates["onnxruntime"])
    return Row(
        name=f"MNIST, lenet_relu, {name}, threads: {threads}: images evaluated a second",
        value=value,
        unit="images/s",
        n=len(rates[name]),
        std=std,
        target=f"{least:g}x onnxruntime in fp32 (goal 1x)",
        met=decide(ratio, interval, least=least),
        peer="onnxruntime, fp32",
        peer_value=peer_value,
        ratio=ratio,
        interval=interval,
        over="rounds, of the ratio",
        peer_std=peer_std,
    )


if __name__ == "__main__":
    main()

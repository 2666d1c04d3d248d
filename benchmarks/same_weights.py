"""Whether a change leaves what training comes to as it was: the hashes of the weights of six small runs.

    python benchmarks/same_weights.py --record weights.json      before the change
    python benchmarks/same_weights.py --against weights.json     after it

An image, a photograph, a series, a recording and a text, of data that the script makes, and weights that are averaged,
each trained for two epochs on one thread. Weights are equal bit for bit on the same machine with the same versions
alone, so that no record is kept.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from record import falconet
from safetensors.numpy import load_file
from training import THREADS

CLASSES = ("one", "two", "three")
COUNT = 24
"""Samples of a class."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--record", type=Path, metavar="FILE", help="write the hashes")
    asked.add_argument(
        "--against", type=Path, metavar="FILE", help="compare with these; exit status 1 where they differ"
    )
    arguments = parser.parse_args()
    os.environ.update(dict.fromkeys(THREADS, "1"))
    found = {}
    for name, (write, options) in RUNS.items():
        with tempfile.TemporaryDirectory() as scratch:
            found[name] = train(write(Path(scratch), np.random.default_rng(0)), options, Path(scratch) / "run")
        print(f"{name}: {found[name][:16]}", flush=True)
    if arguments.record:
        arguments.record.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        return
    before = json.loads(arguments.against.read_text(encoding="utf-8"))
    changed = [name for name in found if found[name] != before.get(name)]
    if changed:
        sys.exit(f"other weights than before: {', '.join(changed)}")
    print(f"the weights of all {len(found)} runs are those of before")


def train(source: str, options: tuple[str, ...], out: Path) -> str:
    """Return the hash of names, shapes and values of the weights that a run comes to."""
    command = falconet("train", source, *options, "--epochs", "2", "--seed", "0", "--out", str(out), "--json")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    digest = hashlib.sha256()
    for name, values in sorted(load_file(out / "model.safetensors").items()):
        digest.update(f"{name} {values.shape} {values.dtype} ".encode() + values.tobytes())
    return digest.hexdigest()


def write_photographs(folder: Path, rng: np.random.Generator) -> str:
    for number, label in enumerate(CLASSES):
        (folder / "photographs" / label).mkdir(parents=True)
        for index in range(COUNT):
            pixels = rng.normal(90 + 40 * number, 40, (80, 96, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photographs" / label / f"{index}.png")
    return str(folder / "photographs")


def write_series(folder: Path, rng: np.random.Generator) -> str:
    steps = np.arange(64)
    labels = np.arange(len(CLASSES) * COUNT) % len(CLASSES)
    series = np.sin(steps * (labels[:, None] + 1) / 5) + rng.normal(0, 0.3, (len(labels), len(steps)))
    np.savez(folder / "waves.npz", series=series[:, None].astype(np.float32), labels=labels)
    return str(folder / "waves.npz")


def write_recordings(folder: Path, rng: np.random.Generator) -> str:
    rate, seconds = 8000, 0.25
    times = np.arange(int(rate * seconds)) / rate
    for number, label in enumerate(CLASSES):
        (folder / "recordings" / label).mkdir(parents=True)
        for index in range(COUNT):
            tone = np.sin(2 * np.pi * 300 * (number + 1) * times) + rng.normal(0, 0.5, len(times))
            with wave.open(str(folder / "recordings" / label / f"{index}.wav"), "wb") as file:
                file.setparams((1, 2, rate, len(tone), "NONE", ""))
                file.writeframes((8000 * tone).clip(-32768, 32767).astype("<i2").tobytes())
    return str(folder / "recordings")


def write_texts(folder: Path, rng: np.random.Generator) -> str:
    words = {label: [f"{label}{index}" for index in range(8)] + ["and", "or", "not"] for label in CLASSES}
    with (folder / "texts.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        for index in range(len(CLASSES) * COUNT):
            label = CLASSES[index % len(CLASSES)]
            writer.writerow((" ".join(rng.choice(words[label], 6)), label))
    return str(folder / "texts.csv")


Write = Callable[[Path, np.random.Generator], str]
RUNS: Mapping[str, tuple[Write, tuple[str, ...]]] = {
    "image": (lambda folder, rng: "digits", ("--model", "lenet5")),
    "photograph": (write_photographs, ("--model", "efficientnet_lite0", "--pretrained", "embedded")),
    "series": (write_series, ("--model", "resnet1d18")),
    "recording": (write_recordings, ("--model", "transformer", "--set", "model.bands=40")),
    "text": (write_texts, ("--model", "gru")),
    "averaged": (
        lambda folder, rng: "digits",
        (
            "--model",
            "lenet_relu",
            "--set",
            "training.ema_decay=0.9",
            "--class-weights",
            "balanced",
            "--set",
            "training.clip_norm=0.5",
        ),
    ),
}


if __name__ == "__main__":
    main()

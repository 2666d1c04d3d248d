"""Writes a trained model's weights in float16: half the bytes, as tests/assets keeps them."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from falconet import load_artifact


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the trained model")
    parser.add_argument("out", type=Path, help="folder to write to")
    arguments = parser.parse_args()
    artifact = load_artifact(arguments.run)
    halves = {name: value.half() if value.is_floating_point() else value for name, value in artifact.weights.items()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    dataclasses.replace(artifact, weights=halves).save(arguments.out)


if __name__ == "__main__":
    main()

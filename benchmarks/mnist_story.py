"""LeNet, SqueezeNet, ResNet and EfficientNet, with a GRU and a Transformer beside them: error and cost on MNIST."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from baselines import classify_pixels
from record import Row, decide, mean, run_recipe, save, seed_interval

from falconet import load_dataset

SEEDS = (0, 1, 2)
NETWORKS = ("lenet5", "squeezenet", "resnet", "efficientnet", "gru", "transformer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", help="the folder that holds MNIST/raw; downloaded where it is missing")
    parser.add_argument("--out", help="keeps the runs here, so that an interrupted benchmark goes on")
    arguments = parser.parse_args()
    peer = 100 * (1 - classify_pixels(load_dataset("mnist", data_root=arguments.data_root)))
    print(f"logistic regression on pixels: {peer:.2f} % error", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(arguments.out or scratch)
        save("mnist-story", [measure(network, peer, arguments.data_root, out) for network in NETWORKS])


def measure(network: str, peer: float, data_root: str | None, out: Path) -> Row:
    """Train one network's recipe for every seed, and return its test error and what it costs."""
    recipe = f"mnist-{network}"
    root = ("--data-root", data_root) if data_root else ()
    runs = run_recipe("mnist", recipe, SEEDS, out / f"mnist-{recipe}", *root)
    errors = [100 * (1 - run["test"]["accuracy"]) for run in runs]
    value, std = mean(errors)
    interval = seed_interval(errors)
    title, target = f"MNIST, recipe {recipe}: test error", f"below {peer:.2f} %"
    return Row(
        title, value, "%", len(runs), std, target, decide(value, interval, most=peer), "logistic regression on pixels",
        peer, value / peer, runs[0]["params"], runs[0]["macs"], interval, "seeds",
    )  # fmt: skip


if __name__ == "__main__":
    main()

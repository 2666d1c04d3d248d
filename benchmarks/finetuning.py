"""Hand signs by EfficientNet-Lite0: from ImageNet's weights, and from random ones, each by its recipe.

The recipes differ in the learning rate and its decay by layer, which were chosen for each.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from record import Row, decide, mean, run_recipe, save, seed_interval

SEEDS = (0, 1, 2)
RECIPE = "sign-digits-finetune"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True, help="folder that holds sign-digits/")
    parser.add_argument("--weights", required=True, help="EfficientNet-Lite0's published weights")
    parser.add_argument("--out", help="keeps the runs here, so that an interrupted benchmark goes on")
    arguments = parser.parse_args()
    source = str(arguments.data_root / "sign-digits")
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(arguments.out or scratch)
        tuned = run_recipe(source, RECIPE, SEEDS, out / RECIPE, "--pretrained", arguments.weights)
        scratched = run_recipe(source, "sign-digits-scratch", SEEDS, out / "sign-digits-scratch")
    save("finetuning", [compare(tuned, scratched)])


def compare(tuned: Sequence[Mapping[str, Any]], scratched: Sequence[Mapping[str, Any]]) -> Row:
    """Return the accuracy of the first beside that of the second, by the differences of runs with the same seed."""
    ours, peers = ([100 * run["test"]["accuracy"] for run in runs] for runs in (tuned, scratched))
    (value, std), (peer_value, peer_std) = mean(ours), mean(peers)
    interval = seed_interval([first - second for first, second in zip(ours, peers, strict=True)])
    return Row(
        f"sign-digits, recipe {RECIPE}: test accuracy", value, "%", len(ours), std, "above training from scratch",
        decide(value - peer_value, interval, least=0.0), "from scratch", peer_value, value / peer_value,
        tuned[0]["params"], tuned[0]["macs"], interval, "seeds, of the difference", peer_std,
        "from scratch: " + ", ".join(f"{peer:.1f}" for peer in peers) + " %",
    )  # fmt: skip


if __name__ == "__main__":
    main()

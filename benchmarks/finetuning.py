"""Hand signs by EfficientNet-Lite0: from ImageNet's weights, and from random ones, each by its recipe."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from record import Row, mean, run_recipe, save

SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True, help="folder that holds sign-digits/")
    parser.add_argument("--weights", required=True, help="EfficientNet-Lite0's published weights")
    parser.add_argument("--out", help="keeps the runs here, so that an interrupted benchmark goes on")
    arguments = parser.parse_args()
    source = str(arguments.data_root / "sign-digits")
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(arguments.out or scratch)
        tuned = measure(source, "sign-digits-finetune", out, "--pretrained", arguments.weights)
        scratched = measure(source, "sign-digits-scratch", out)
    save("finetuning", [compare(tuned, scratched)])


def measure(source: str, recipe: str, out: Path, *more: str) -> Row:
    """Train a recipe for every seed, and return its test accuracy."""
    runs = run_recipe(source, recipe, SEEDS, out / recipe, *more)
    value, std = mean([100 * run["test"]["accuracy"] for run in runs])
    title, cost = f"sign-digits, recipe {recipe}: test accuracy", (runs[0]["params"], runs[0]["macs"])
    return Row(title, value, "%", len(runs), std, "", True, params=cost[0], macs=cost[1])


def compare(tuned: Row, scratched: Row) -> Row:
    """Return the first row beside the second."""
    return Row(
        tuned.name, tuned.value, "%", tuned.n, tuned.std, "above training from scratch", tuned.value > scratched.value,
        "from scratch", scratched.value, tuned.value / scratched.value, tuned.params, tuned.macs,
    )  # fmt: skip


if __name__ == "__main__":
    main()

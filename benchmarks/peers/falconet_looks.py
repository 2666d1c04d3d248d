"""Falconet: `falconet train SOURCE` alone, with the seconds from the start of the process at each epoch's end."""

from __future__ import annotations

import io
import json
import time
from contextlib import redirect_stdout

from splits import answer, make_parser

from falconet import Callback, cli, terminal
from falconet.training import EpochRow


class Watch(Callback):
    """Notes what an epoch's validation came to, and when."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.looks: list[dict[str, float]] = []

    def on_epoch(self, row: EpochRow, best: bool) -> None:
        self.looks.append({"seconds": time.time() - self.started, "accuracy": row.val_accuracy})


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    watch = Watch(arguments.started)
    terminal.watch = lambda model: (watch,)  # type: ignore[assignment, return-value]
    with redirect_stdout(io.StringIO()) as printed:
        cli.run(["train", str(arguments.source), "--out", arguments.out, "--seed", str(arguments.seed), "--json"])
    facts = json.loads(printed.getvalue())
    test = facts["test"]
    answer(
        library="falconet",
        model=facts["model"],
        accuracy=test["accuracy"],
        macro_f1=test["macro_f1"],
        n=test["n"],
        looks=watch.looks,
    )


if __name__ == "__main__":
    main()

"""demonstrate(): the whole story on the embedded digits, in under a minute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from falconet.report import render_html
from falconet.runs import RunResult, train
from falconet.storage import write_text
from falconet.training import Callback

MODELS = ("lenet5", "lenet_relu")


@dataclass(frozen=True, eq=False)
class Demonstration:
    """What the demonstration made."""

    runs: tuple[RunResult, ...]
    report: Path


def demonstrate(
    out: str | Path = "runs/demo", watch: Callable[[str], Sequence[Callback]] = lambda model: ()
) -> Demonstration:
    """Train each of MODELS on the digits, and write one report about all into `out`.

    An earlier demonstration in `out` is replaced. `watch` returns the callbacks for the run of a model.
    """
    out = Path(out)
    runs = tuple(
        train("digits", model=model, recipe="digits", out=out / model, existing="overwrite", callbacks=watch(model))
        for model in MODELS
    )
    report = out / "report.html"
    write_text(report, render_html([run.report for run in runs], title="Falconet on the embedded digits"))
    return Demonstration(runs, report)

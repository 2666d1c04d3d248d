"""demonstrate(): training, comparison and reports on the embedded digits, in under a minute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from falconet.errors import RunExistsError
from falconet.model import Run, train
from falconet.model_files import CONFIG_FILE as ARTIFACT_CONFIG
from falconet.planning import check_out, has_weights, holds_run
from falconet.renames import accept_renamed
from falconet.report import render_html
from falconet.storage import check_held, hold, write_text
from falconet.training import Callback, EpochRow

_MODELS = ("lenet5", "lenet_relu")
_REPORT_FILE = "report.html"


@dataclass(frozen=True, eq=False)
class Demonstration:
    """The result of the demonstration."""

    runs: tuple[Run, ...]
    report: Path


class _Outdated(Callback):
    """A callback that removes an outdated report as soon as new weights will replace those of its models."""

    def __init__(self, report: Path) -> None:
        self.report = report

    def on_epoch(self, row: EpochRow, best: bool) -> None:
        check_held(self.report)
        self.report.unlink(missing_ok=True)


@accept_renamed(existing=lambda value: {"if_exists": value})
def demonstrate(
    out: str | Path = "runs/demo",
    watch: Callable[[str], Sequence[Callback]] = lambda model: (),
    if_exists: Literal["refuse", "overwrite"] = "refuse",
) -> Demonstration:
    """Train LeNet-5 and a modern variant on the digits, and write one report about all into `out`.

    `watch` returns the callbacks for the run of a model; `if_exists` says what to do with an earlier demonstration in
    `out`. Raises RunExistsError where runs or a report would be lost, or another process is at work there.
    """
    out = Path(out)
    report = out / _REPORT_FILE
    _check_free(out, if_exists)
    with hold(out):
        runs = tuple(
            train(
                "digits",
                model=model,
                recipe="digits",
                out=out / model,
                if_exists=if_exists,
                progress=False,
                callbacks=callbacks,
            )
            for model, callbacks in ((model, (_Outdated(report), *watch(model))) for model in _MODELS)
        )
        write_text(report, render_html([run.report for run in runs], title="Falconet on the embedded digits"))
    return Demonstration(runs, report)


def _check_free(out: Path, if_exists: Literal["refuse", "overwrite"]) -> None:
    """Raise RunExistsError where a folder has a run, or runs and a report that may not be replaced."""
    if holds_run(out) or (out / ARTIFACT_CONFIG).is_file():
        raise RunExistsError(f"{out} holds a run, whose report would be replaced: choose another --out")
    for folder in (out / model for model in _MODELS):
        check_out(folder, "overwrite")
    found = [out / model for model in _MODELS if has_weights(out / model)]
    found += [out / _REPORT_FILE] if (out / _REPORT_FILE).exists() else []
    if found and if_exists == "refuse":
        raise RunExistsError(
            f"{found[0]} is there already: replace it with if_exists='overwrite', or choose another folder"
        )

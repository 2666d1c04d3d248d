"""Verbs that use a trained model: evaluate, predict."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from falconet.cli.app import (
    Assignments,
    DataRoot,
    Debug,
    Follow,
    Json,
    ModelFolder,
    Source,
    Strict,
    app,
    ask_data,
    check_picture,
    name_settings,
)
from falconet.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from falconet.data.unlabeled import InputSource
    from falconet.exporters.targets import Runtime
    from falconet.predictions import Prediction, Predictions


ExportedBy = Annotated[
    str | None,
    typer.Option(
        help="onnxruntime or openvino: DIR is a file that `falconet export` wrote, run without torch. Default: by its "
        "suffix, .onnx or .xml."
    ),
]


@app.command()
def evaluate(
    model: ModelFolder,
    source: Source,
    split: Annotated[
        str | None,
        typer.Option(help="train, val, test or all. Default: test, or all of another source that has no test split."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="DIR2", help="Compare with another model on the same samples, by McNemar's test."),
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Accuracy by the values of a column in the table, worst first.")
    ] = None,
    ood: Annotated[
        str | None, typer.Option(metavar="SOURCE2", help="Out-of-distribution samples: AUROC of confidence and energy.")
    ] = None,
    target_accuracy: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION", help="Find the confidence threshold for a wanted accuracy (0.99), and its coverage."
        ),
    ] = None,
    precision: Annotated[float | None, typer.Option("--precision", hidden=True)] = None,
    corruptions: Annotated[
        bool, typer.Option("--corruptions", help="Also evaluate on noisy, blurred, ... samples and attacked images.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw what --corruptions finds into a PNG: accuracy over severity.")
    ] = None,
    costs: Annotated[
        bool, typer.Option("--costs", help="Also measure latency, cold start, memory and energy of predictions.")
    ] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Evaluate in bfloat16.")] = False,
    runtime: ExportedBy = None,
    follow: Follow = False,
    settings: Assignments = None,
    data_root: DataRoot = None,
    strict: Strict = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Evaluate a trained model, or an exported file, on a data set."""
    from falconet.catalog import check_source
    from falconet.model_files import check_artifact

    check_picture("--plot", plot)
    if plot and not corruptions:
        raise UsageError("--plot: wanted --corruptions with it, whose accuracies it draws")
    runtime = runtime or _guess_runtime(model)
    extras: dict[str, Any] = {
        "against": against,
        "by": by,
        "ood": ood,
        "target_accuracy": _take_old(precision, target_accuracy),
        "corruptions": corruptions,
        "costs": costs,
        "bf16": bf16,
    }
    if runtime is None:
        check_artifact(model)
    else:
        for name, value in extras.items():
            if value not in (None, False):
                raise UsageError(f"{name}: wanted a model's folder, found an exported file: {model}")
    check_source(source)
    if against:
        check_artifact(against)
    if ood:
        check_source(ood)
    from falconet import evaluation, terminal

    asked = ask_data(settings, None, follow, strict)["data"]
    if runtime is None:
        _note_stale(model)
        number_format = "bf16" if extras.pop("bf16") else "fp32"
        result = evaluation.evaluate(
            model, source, split=split, data_root=data_root, settings=asked, number_format=number_format, **extras
        )
    else:
        from falconet.exporters.evaluation import evaluate_exported

        result = evaluate_exported(
            _find_runtime(runtime), model, source, split=split, data_root=data_root, settings=asked
        )
    if plot and result.robustness:
        from falconet.data.drawing import write_figure
        from falconet.report.robustness import draw_robustness

        write_figure(draw_robustness(result.robustness), plot)
        terminal.print_note(f"plot: {plot}")
    for note in result.notes:
        terminal.print_note(name_settings(note))
    terminal.print_left_out(result.ignored, result.unreadable)
    if json:
        from falconet.schema import to_mapping

        terminal.print_json(to_mapping(result))
        return
    from falconet.cli.evaluation_tables import print_evaluation

    print_evaluation(result)


def _note_stale(model: Path) -> None:
    """Print which files in a model's folder describe other weights."""
    from falconet import terminal
    from falconet.artifact import list_stale

    for name in list_stale(model):
        terminal.print_note(f"{model / name} does not speak of these weights, but of earlier ones")


@app.command()
def predict(
    model: ModelFolder,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|FOLDER|URL|-...",
            help="Images, .wav or .txt, folders of them; tables (.csv, .tsv, .jsonl, .parquet) of files, texts or "
            "series; .ts, .npz; http(s) addresses of these; -: lines of texts, of paths or of JSON.",
        ),
    ],
    top: Annotated[int, typer.Option(help="Number of top labels of each sample.", min=1)] = 3,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also probabilities of all classes.")] = False,
    tta: Annotated[
        bool,
        typer.Option(
            "--tta",
            help="Test-time augmentation: average over each image and its mirror image, where training flipped too.",
        ),
    ] = False,
    runtime: ExportedBy = None,
    out: Annotated[Path | None, typer.Option(help="Write a table: .csv, .jsonl or .parquet.")] = None,
    follow: Follow = False,
    settings: Assignments = None,
    data_root: DataRoot = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Classify files, rows of tables, series and texts."""
    from falconet.model_files import check_artifact

    runtime = runtime or _guess_runtime(model)
    if runtime is None:
        check_artifact(model)
    elif tta:
        raise UsageError(f"--tta: wanted a run's folder, which tells whether training mirrored images, found {model}")
    places = _list_places(files)
    from falconet import tables

    if out:
        tables.check_table_path(out)
    from falconet import terminal
    from falconet.predictions import collect
    from falconet.schema import to_mapping

    asked = _ask_reading(settings, follow)
    parts = _answer(
        model, places, runtime, top=top, probabilities=probabilities, tta=tta, settings=asked, data_root=data_root
    )
    if out:
        parts = _write_parts(parts, out, keep=json)
    result = collect(parts)
    _print_skipped(result)
    if json:
        terminal.print_json(to_mapping(result))
    elif not out:
        _print_predictions(result, probabilities)


def _take_old(precision: float | None, target_accuracy: float | None) -> float | None:
    """Return the wanted accuracy, which was called `--precision` before."""
    if precision is None or target_accuracy is not None:
        return target_accuracy
    from falconet.renames import note

    note("--precision is now --target-accuracy")
    return precision


def _list_places(files: list[str]) -> list[InputSource]:
    """Return the inputs that a command names; `-` is standard input. Raises PathError, UsageError."""
    from falconet.catalog import check_place, is_url

    if "-" in files and sys.stdin is None:
        raise UsageError("-: wanted lines on standard input, which is closed")
    if files.count("-") > 1:
        raise UsageError("-: wanted standard input once, found it several times")
    for file in files:
        if file != "-" and not is_url(file):
            check_place(file)
    from falconet.data.unlabeled import Url

    return [sys.stdin.buffer if file == "-" else Url(file) if is_url(file) else Path(file) for file in files]


def _ask_reading(settings: list[str] | None, follow: bool) -> dict[str, Any]:
    """Return the settings of `data` that say how tables are read."""
    return ask_data(settings, None, follow, strict=False)["data"] if settings or follow else {}


def _answer(
    model: Path, places: list[InputSource], runtime: str | None, *, tta: bool, **options: Any
) -> Iterator[Predictions]:
    """Return the predictions of a model, or of an exported file by its runtime, some samples at a time."""
    if runtime is None:
        from falconet import evaluation

        return evaluation.iterate_predictions(model, places, tta=tta, **options)
    from falconet.exporters.inference import iterate_exported

    return iterate_exported(_find_runtime(runtime), model, places, **options)


def _guess_runtime(model: Path) -> str | None:
    """Return the runtime of an exported file by its name; None for what is none."""
    known = {".onnx": "onnxruntime", ".xml": "openvino"}
    return known.get(model.suffix.lower()) if model.is_file() else None


def _find_runtime(name: str) -> Runtime:
    """Return the runtime of a name on the command line. Raises UnknownNameError."""
    known: dict[str, Runtime] = {"onnxruntime": "onnxruntime", "openvino": "openvino", "onnx": "onnxruntime"}
    if name not in known:
        raise UnknownNameError("runtime", name, known)
    return known[name]


def _write_parts(parts: Iterator[Predictions], out: Path, *, keep: bool) -> Iterator[Predictions]:
    """Write predictions to a table as they come, and yield their parts; with `keep`, the predictions in them too."""
    from falconet import tables, terminal

    counts: Counter[str] = Counter()
    with tables.write_rows(out) as write:
        for part in parts:
            write([_to_row(row, flat=out.suffix.lower() != ".jsonl") for row in part.predictions])
            counts.update(row.label for row in part.predictions)
            yield part if keep else replace(part, predictions=())
    most = ", ".join(f"{label} {count:,}" for label, count in counts.most_common(5))
    terminal.print_note(f"wrote {counts.total():,} predictions to {out} ({most}{', ...' if len(counts) > 5 else ''})")


def _to_row(prediction: Prediction, *, flat: bool) -> dict[str, Any]:
    """Return a prediction as a row of a table; where it is to be flat, with a column for each class's probability."""
    from falconet.schema import to_mapping

    row: dict[str, Any] = to_mapping(prediction)
    if flat and "probabilities" in row:
        row |= {f"probability {label}": value for label, value in row.pop("probabilities").items()}
    return row


_MAX_SKIPPED = 100
"""Most lines about unreadable samples; a large table may have as many as rows."""


def _print_skipped(result: Predictions) -> None:
    """Print which inputs were unreadable or left out, and what was guessed."""
    from falconet import terminal
    from falconet.data.files import describe_ignored

    for note in result.notes:
        terminal.print_note(name_settings(note))
    for item in result.skipped[:_MAX_SKIPPED]:
        terminal.print_note(f"skipped {item.file}: {name_settings(item.reason)}")
    if len(result.skipped) > _MAX_SKIPPED:
        terminal.print_note(f"skipped {len(result.skipped) - _MAX_SKIPPED:,} more; --json lists all")
    if result.ignored:
        terminal.print_note(f"ignored: {describe_ignored(result.ignored)}")


def _print_predictions(result: Predictions, probabilities: bool) -> None:
    """Print a line for each sample, the next candidates after its label, or the probabilities of all classes."""
    from falconet import terminal

    rows = [
        (
            row.file,
            row.label,
            f"{row.probability:.2%}",
            ", ".join(
                f"{label} {value:.2%}"
                for label, value in (
                    (row.probabilities or {}).items()
                    if probabilities
                    else [(item.label, item.probability) for item in row.top[1:]]
                )
            ),
        )
        for row in result.predictions
    ]
    terminal.print_table(("file", "label", "probability", "probabilities" if probabilities else "next"), rows)

"""Verbs that use a trained model: evaluate, predict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
)
from falconet.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from falconet.exporters.targets import Runtime
    from falconet.predictions import Predictions


@app.command()
def evaluate(
    model: ModelFolder,
    source: Source,
    split: Annotated[
        str | None,
        typer.Option(help="train, val, test or all. Default: test, or all of another source that has no test split."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="DIR2", help="Another model on the same samples: is the difference chance?")
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Accuracy by the values in a column of the table, worst first.")
    ] = None,
    ood: Annotated[
        str | None, typer.Option(metavar="SOURCE2", help="Samples of other things: is the model less sure of them?")
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="From which confidence on so many are right (0.99), and how many."),
    ] = None,
    corruptions: Annotated[
        bool, typer.Option("--corruptions", help="Also on noisy, blurred, ... samples, and on attacked images.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw what --corruptions finds into a PNG: accuracy over severity.")
    ] = None,
    costs: Annotated[
        bool, typer.Option("--costs", help="Also latency, cold start, memory and energy of answers.")
    ] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Let the network compute in bfloat16.")] = False,
    follow: Follow = False,
    settings: Assignments = None,
    data_root: DataRoot = None,
    strict: Strict = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Judge a trained model on a data set."""
    from falconet.catalog import check_artifact, check_source

    check_picture("--plot", plot)
    if plot and not corruptions:
        raise UsageError("--plot: wanted --corruptions with it, whose accuracies it draws")
    check_artifact(model)
    check_source(source)
    if against:
        check_artifact(against)
    if ood:
        check_source(ood)
    from falconet import evaluation, terminal

    asked = ask_data(settings, None, follow, strict)["data"]
    note_stale(model)
    result = evaluation.evaluate(
        model,
        source,
        split=split,
        data_root=data_root,
        settings=asked,
        against=against,
        by=by,
        ood=ood,
        precision=precision,
        corruptions=corruptions,
        costs=costs,
        number_format="bf16" if bf16 else "fp32",
    )
    if plot and result.robustness:
        from falconet.data.drawing import write_figure
        from falconet.report.robustness import draw_robustness

        write_figure(draw_robustness(result.robustness), plot)
        terminal.print_note(f"plot: {plot}")
    for note in result.notes:
        terminal.print_note(note)
    terminal.print_left_out(result.ignored, result.unreadable)
    if json:
        from falconet.schema import to_mapping

        terminal.print_json(to_mapping(result))
        return
    terminal.print_evaluation(result)


def note_stale(model: Path) -> None:
    """Say which files in a model's folder speak of other weights."""
    from falconet import terminal
    from falconet.artifact import list_stale

    for name in list_stale(model):
        terminal.print_note(f"{model / name} does not speak of these weights, but of earlier ones")


@app.command()
def predict(
    model: ModelFolder,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE|FOLDER...", help="Images, .wav or .txt, and folders of them.")
    ],
    top: Annotated[int, typer.Option(help="Candidates for each file.", min=1)] = 3,
    runtime: Annotated[
        str | None,
        typer.Option(help="onnx or openvino: DIR is a file that `falconet export` wrote; answers without torch."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write a table: .csv, .jsonl or .parquet.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Classify files."""
    from falconet.catalog import check_artifact
    from falconet.errors import PathError

    if runtime is None:
        if model.suffix.lower() in (".onnx", ".xml") and model.is_file():
            raise UsageError(f"{model}: an exported file wants its runtime: --runtime onnx or --runtime openvino")
        check_artifact(model)
    for file in files:
        if not file.exists():
            raise PathError(f"no such file or folder: {file}")
    from falconet import tables

    if out:
        tables.check_table_path(out)
    from falconet import terminal
    from falconet.schema import to_mapping

    result = answer_files(model, files, top, runtime)
    for item in result.skipped:
        terminal.print_note(f"skipped {item.file}: {item.reason}")
    if result.ignored:
        from falconet.data.files import describe_ignored

        terminal.print_note(f"ignored: {describe_ignored(result.ignored)}")
    if out:
        tables.write_table(out, [to_mapping(row) for row in result.predictions])
        terminal.print_note(f"wrote {len(result.predictions)} predictions to {out}")
    if json:
        terminal.print_json(to_mapping(result))
        return
    rows = [
        (
            row.file,
            row.label,
            f"{row.probability:.2%}",
            ", ".join(f"{item.label} {item.probability:.2%}" for item in row.top[1:]),
        )
        for row in result.predictions
    ]
    terminal.print_table(("file", "label", "probability", "next"), rows)


def answer_files(model: Path, files: list[Path], top: int, runtime: str | None) -> Predictions:
    """Let a model answer, or an exported file by its runtime."""
    if runtime is None:
        from falconet import evaluation

        return evaluation.predict(model, files, top=top)
    from falconet.exporters.asking import predict_exported

    return predict_exported(find_runtime(runtime), model, files, top=top)


def find_runtime(name: str) -> Runtime:
    """Return the runtime of a name on the command line. Raises UnknownNameError."""
    known: dict[str, Runtime] = {"onnx": "onnxruntime", "openvino": "openvino"}
    if name not in known:
        raise UnknownNameError("runtime", name, known)
    return known[name]

"""The verb explain."""

from __future__ import annotations

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
    Strict,
    app,
    ask_data,
    name_settings,
)
from falconet.errors import UsageError

if TYPE_CHECKING:
    from falconet.explanation import Examination, Explanations


@app.command()
def explain(
    model: ModelFolder,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|FOLDER...|SOURCE",
            help="Images, .wav or .txt, and folders of them; or one name, table or .ts file, of which --samples are "
            "explained. With --report: one source, as evaluate takes it.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for pictures, explanations.html and explanations.json.")],
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|all",
            help="Attribution method. Default: the first possible of gradcam, integrated_gradients, occlusion.",
        ),
    ] = None,
    report: Annotated[
        bool,
        typer.Option("--report", help="Examine the model on a SOURCE: errors, least confident predictions, layers."),
    ] = False,
    classes: Annotated[int, typer.Option(help="Number of most probable classes to explain.", min=1)] = 1,
    samples: Annotated[
        int,
        typer.Option(
            help="Number of samples of a SOURCE; with --report, of errors, and of least confident predictions.", min=1
        ),
    ] = 8,
    split: Annotated[str, typer.Option(help="Split of a SOURCE: train, val, test or all.")] = "test",
    follow: Follow = False,
    settings: Assignments = None,
    data_root: DataRoot = None,
    strict: Strict = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Explain a model's predictions, and show how far each explanation can be trusted."""
    from falconet.catalog import check_source
    from falconet.model_files import check_artifact

    check_artifact(model)
    if report:
        if len(files) > 1:
            raise UsageError(f"--report: wanted one source, found {len(files)} arguments")
        check_source(files[0])
    else:
        _check_files(files)
    asked = ask_data(settings, None, follow, strict)["data"]
    from falconet import explanation, terminal
    from falconet.schema import to_mapping

    options: dict[str, Any] = {
        "method": method, "out": out, "classes": classes, "samples": samples, "split": split,
        "data_root": data_root, "settings": asked,
    }  # fmt: skip
    result = explanation.examine(model, files[0], **options) if report else explanation.explain(model, files, **options)
    if json:
        terminal.print_json(to_mapping(result))
        return
    _print_result(result)


def _check_files(files: list[str]) -> None:
    """Raise PathError or UnknownNameError unless there are files and folders, or one source."""
    from falconet.catalog import check_source
    from falconet.errors import PathError

    missing = [file for file in files if not Path(file).exists()]
    if len(files) == 1 and missing:
        check_source(files[0])
    elif missing:
        raise PathError(f"no such file or folder: {missing[0]}")


def _print_result(result: Explanations | Examination) -> None:
    """Print what was explained, how far the methods may be trusted, and where the pictures are."""
    from falconet import terminal
    from falconet.data.files import describe_ignored
    from falconet.explanation import Explanations

    found = result if isinstance(result, Explanations) else result.explanations
    for file in found.skipped:
        terminal.print_note(f"skipped {file.file}: {name_settings(file.reason)}")
    if found.ignored:
        terminal.print_note(f"ignored: {describe_ignored(found.ignored)}")
    for item in found.items:
        if item.tokens:
            terminal.print_shades(f"{item.file} ({item.method}, {item.label} {item.probability:.1%}): ", item.tokens)
    if isinstance(result, Explanations):
        rows = [
            (
                item.file,
                item.label,
                f"{item.probability:.2%}",
                item.method,
                f"{item.deletion_auc:.3f}",
                f"{item.insertion_auc:.3f}",
                f"{item.randomization:.2f}",
                Path(item.picture).name,
            )
            for item in found.items
        ]
        columns = ("file", "label", "probability", "method", "deletion", "insertion", "random weights", "picture")
        terminal.print_table(columns, rows)
    else:
        cases = [
            (case.file, case.truth, case.answer, f"{case.probability:.2%}")
            for case in (*result.mistakes, *result.doubts)
        ]
        terminal.print_table(("file", "label", "predicted", "confidence"), cases)
    terminal.print_line()
    _print_scores(found)
    terminal.print_line(f"page: {result.page}")


def _print_scores(found: Explanations) -> None:
    """Print a line for each method, and the one that deserves most trust."""
    from falconet import terminal

    rows = [
        (
            score.method,
            f"{score.n}",
            f"{score.deletion_auc:.3f}",
            f"{score.insertion_auc:.3f}",
            f"{score.randomization:.2f}",
            f"{score.trust:.3f}",
        )
        for score in found.methods
    ]
    terminal.print_table(("method", "n", "deletion", "insertion", "random weights", "trust"), rows)
    if found.best is None:
        terminal.print_line(
            "no method is better than a random order by more than chance here: believe none of these pictures, or "
            "explain more samples"
        )
    else:
        terminal.print_line(f"most trusted: {found.best} (largest insertion - deletion that training explains)")

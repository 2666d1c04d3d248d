"""The command line: verbs that parse, call and print. Nothing here imports torch before it must."""

from __future__ import annotations

import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from falconet.errors import ConfigError, FalconetError, UnknownNameError, UsageError

app = typer.Typer(
    name="falconet",
    help="Train, judge, shrink, explain and ship small classifiers of images and sequences.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]
"""The base of all mistakes that typer itself finds; it keeps the class in a private module."""

INTERRUPTED = 130
"""What typer returns after Ctrl-C."""

Source = Annotated[
    str,
    typer.Argument(
        help="A name (digits, mnist, cifar10, ...), hf:owner/name, or a path: folder of classes, table of files, texts "
        "or series (.csv, .tsv, .jsonl, .parquet), .ts, .npz, IDX folder."
    ),
]
ModelFolder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a trained model.")]
DataRoot = Annotated[
    Path | None, typer.Option(help="Where named data sets are kept and downloaded to.", envvar="FALCONET_DATA")
]
Groups = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Keep samples of one person, device, page on one side of a split.")
]
Follow = Annotated[
    bool, typer.Option("--follow", help="Read files that links, .. or absolute paths lead to outside the source.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="One setting, as data.columns.label=intent."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse unreadable files instead of skipping them.")]
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        # File names may hold what the terminal's encoding cannot show.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; a user's mistake is one line on standard error."""
    try:
        code = app(arguments or ["--help"], prog_name="falconet", standalone_mode=False)
        if code == INTERRUPTED:
            return fail("stopped", 1)
        return code if isinstance(code, int) else 0
    except (FalconetError, CommandLineError) as error:
        if "--debug" in arguments:
            traceback.print_exc()
        return report(error)
    except (KeyboardInterrupt, typer.Abort):
        return fail("stopped", 1)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        return fail(f"unexpected {type(error).__name__}: {error} (--debug shows where)", 1)


def report(error: Exception) -> int:
    """Print an error's one line and return its exit code."""
    if isinstance(error, FalconetError):
        return fail(str(error), error.exit_code)
    message = error.format_message()  # type: ignore[attr-defined]
    return fail(f"{message} (see falconet --help)", 2)


def fail(message: str, code: int) -> int:
    sys.stderr.write(f"falconet: {' '.join(message.split())}\n")
    return code


def print_version(wanted: bool) -> bool:
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"falconet {version('falconet')}\n")
        raise typer.Exit
    return wanted


@app.callback()
def describe(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train, judge, shrink, explain and ship small classifiers of images and sequences."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the runs and the report.")] = Path("runs/demo"),
    json: Json = False,
    debug: Debug = False,
) -> None:
    """The whole story on the embedded digits, in under a minute."""
    from falconet import terminal
    from falconet.demonstration import demonstrate

    result = demonstrate(out, terminal.watch)
    if json:
        terminal.print_json({"report": str(result.report), "rows": [to_row(run) for run in result.runs]})
        return
    columns = (
        "model",
        "accuracy",
        "95% interval",
        "macro recall",
        "macro F1",
        "parameters",
        "MACs",
        "bytes",
        "latency",
    )
    terminal.print_table(columns, [format_row(to_row(run)) for run in result.runs])
    terminal.print_line(f"\nreport: {result.report}")
    terminal.print_line(f"next:   falconet predict {result.runs[0].out} YOUR_IMAGE.png")


def to_row(run: Any) -> dict[str, Any]:
    """Return the figures by which models are compared."""
    test, report = run.test, run.report
    return {
        "model": run.model,
        "out": str(run.out),
        "accuracy": test.accuracy,
        "accuracy_ci": list(test.accuracy_ci),
        "macro_recall": test.macro_recall,
        "macro_f1": test.macro_f1,
        "params": report.params,
        "macs": report.macs,
        "bytes": report.bytes,
        "latency_ms": report.latency.p50,
        "seconds": run.seconds,
    }


def format_row(row: dict[str, Any]) -> tuple[str, ...]:
    low, high = row["accuracy_ci"]
    return (
        row["model"],
        f"{row['accuracy']:.2%}",
        f"{low:.2%} – {high:.2%}",
        f"{row['macro_recall']:.2%}",
        f"{row['macro_f1']:.2%}",
        f"{row['params']:,}",
        f"{row['macs']:,}",
        f"{row['bytes']:,}",
        f"{row['latency_ms']:.2f} ms",
    )


@app.command()
def models(
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a shell pattern.")] = "*",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List architectures: parameters, MACs, input, paper."""
    from falconet.models import MODELS, list_models

    names = list_models(pattern)
    if not names:
        raise UsageError(f"no model matches {pattern!r}; `falconet models` lists all {len(MODELS)}")
    entries = [(name, MODELS[name]) for name in names]
    from falconet import terminal

    if json:
        rows = [
            {
                "name": name,
                "params": entry.params,
                "macs": entry.macs,
                "input": list(entry.input),
                "kinds": list(entry.kinds),
                "paper": entry.paper,
            }
            for name, entry in entries
        ]
        terminal.print_json({"models": rows})
        return
    table = [
        (
            name,
            "/".join(entry.kinds),
            f"{entry.params:,}",
            f"{entry.macs:,}",
            "x".join(map(str, entry.input)),
            entry.paper,
        )
        for name, entry in entries
    ]
    terminal.print_table(("model", "takes", "parameters", "MACs", "input", "paper"), table)


@app.command()
def summary(
    model: Annotated[str, typer.Argument(help="A name that `falconet models` lists.")],
    shape: Annotated[str | None, typer.Option("--input", help="Size of a sample, as 3x224x224.")] = None,
    kind: Annotated[str | None, typer.Option(help="image, series or text, for a model that takes several.")] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes.", min=2)] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show a model layer by layer: output shape, parameters, MACs, activations."""
    from falconet.models import find_model
    from falconet.spec import KIND_NAMES

    find_model(model)
    if kind is not None and kind not in KIND_NAMES:
        raise UnknownNameError("kind", kind, KIND_NAMES)
    input_shape = parse_shape(shape) if shape else None
    from falconet import terminal
    from falconet.complexity import summarize

    cost = summarize(model, input_shape=input_shape, kind=kind, num_classes=classes)
    if json:
        from falconet.schema import to_mapping

        terminal.print_json({**to_mapping(cost), "activation_bytes": cost.activation_bytes})
        return
    rows = [
        (
            layer.name,
            layer.type,
            "x".join(map(str, layer.output_shape)),
            f"{layer.params:,}",
            f"{layer.macs:,}",
            f"{layer.activation_bytes:,}",
        )
        for layer in cost.layers
    ]
    total = ("total", "", "", f"{cost.params:,}", f"{cost.macs:,}", f"{cost.activation_bytes:,}")
    terminal.print_line(f"{model}, input {'x'.join(map(str, cost.input))}")
    terminal.print_table(("layer", "type", "output", "parameters", "MACs", "activation bytes"), [*rows, total])


def parse_shape(text: str) -> tuple[int, ...]:
    """Read "3x224x224" or "1x150". Raises ConfigError."""
    parts = text.lower().split("x")
    if len(parts) not in (2, 3) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(
            "--input: wanted channels, height and width as 3x224x224, channels and steps as 1x150, or vocabulary and "
            f"tokens as 8000x64, found {text!r}"
        )
    return tuple(int(part) for part in parts)


@app.command()
def data(
    source: Source,
    preview: Annotated[Path | None, typer.Option(help="Write a PNG of originals above augmented samples.")] = None,
    suspects: Annotated[Path | None, typer.Option(help="Write a PNG of the samples that look wrong.")] = None,
    label_errors: Annotated[
        bool, typer.Option("--label-errors", help="Train small models to find labels that are likely wrong.")
    ] = False,
    groups: Groups = None,
    follow: Follow = False,
    settings: Assignments = None,
    data_root: DataRoot = None,
    strict: Strict = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check and describe a data set."""
    from falconet.catalog import check_source

    check_source(source)
    for option, path in (("--preview", preview), ("--suspects", suspects)):
        if path and path.suffix.lower() != ".png":
            raise ConfigError(f"{option}: wanted a file name ending in .png, found {path}")
    from falconet import terminal
    from falconet.catalog import default_policy
    from falconet.data import DataConfig, load_dataset
    from falconet.data.checks import describe_data
    from falconet.schema import from_mapping, to_mapping

    asked = ask_data(settings, groups, follow, strict)
    dataset = load_dataset(source, data_root=data_root, config=from_mapping(DataConfig, asked["data"], "data"))
    report = describe_data(dataset)
    if label_errors:
        from falconet.auditing import find_label_errors

        report = replace(report, label_errors=find_label_errors(dataset, terminal.watch("label errors")))
    if preview:
        from falconet.data.preview import write_preview

        write_preview(dataset, preview, default_policy(dataset.source, dataset.kind))
        terminal.print_note(f"preview: {preview}")
    if suspects:
        from falconet.data.preview import write_suspects

        write_suspects(dataset, report, suspects)
        terminal.print_note(f"suspects: {suspects}")
    if json:
        terminal.print_json(to_mapping(report))
        return
    terminal.print_data_report(report)


def ask_data(settings: list[str] | None, groups: str | None, follow: bool, strict: bool) -> dict[str, Any]:
    """Return settings of the section `data` that verbs without a configuration were given."""
    from falconet import planning

    asked = planning.parse_assignments(settings or [])
    planning.check_sections(asked)
    for section in asked:
        if section != "data":
            raise ConfigError(f"--set: wanted data.KEY=VALUE, found {section}: only `train` has other sections")
    return merge_data_flags(asked, groups, follow, strict)


def merge_data_flags(asked: dict[str, Any], groups: str | None, follow: bool, strict: bool) -> dict[str, Any]:
    """Return settings with what the short options for the section `data` say."""
    from falconet.schema import merge

    flags: dict[str, Any] = {key: True for key, value in (("follow", follow), ("strict", strict)) if value}
    if groups is not None:
        flags["columns"] = {"group": groups}
    return merge(asked, {"data": flags})


@app.command()
def train(
    source: Source,
    model: Annotated[str | None, typer.Option(help="A name that `falconet models` lists.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/<source>-<model> by default.")] = None,
    recipe: Annotated[str | None, typer.Option(help="A named recipe, or a YAML file.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training samples.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and augmentation.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    settings: Assignments = None,
    class_weights: Annotated[
        str | None, typer.Option(help="balanced: rare classes count as much as frequent ones in the loss.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="balanced: rare classes are drawn as often as frequent ones.")
    ] = None,
    groups: Groups = None,
    follow: Follow = False,
    data_root: DataRoot = None,
    strict: Strict = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train, judge, save and report a classifier."""
    from falconet.catalog import check_source
    from falconet.models import find_model

    check_source(source)
    if model:
        find_model(model)
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other")
    from falconet import planning, terminal
    from falconet.data.checks import find_leaks
    from falconet.schema import merge

    asked = planning.read_settings(config) if config else {}
    asked = merge(asked, planning.parse_assignments(settings or []))
    planning.check_sections(asked)
    balance = {key: value for key, value in (("class_weights", class_weights), ("sampler", sampler)) if value}
    asked = merge_data_flags(merge(asked, {"training": balance}), groups, follow, strict)
    plan = planning.plan_run(
        source,
        model=model,
        recipe=recipe,
        epochs=epochs,
        seed=seed,
        settings=asked,
        out=out,
        existing="resume" if resume else "overwrite" if overwrite else "refuse",
        data_root=data_root,
    )
    if resume and not planning.has_weights(plan.out):
        terminal.print_note(f"nothing to resume in {plan.out}: this run starts anew")
    terminal.print_note(terminal.describe_dataset(plan.dataset))
    if plan.dataset.columns:
        terminal.print_note(terminal.describe_columns(plan.dataset.columns))
    leaks = find_leaks(plan.dataset)
    if leaks:
        terminal.print_note(f"caution: {len(leaks)} groups of equal samples stand in more than one split")
    if plan.chosen:
        terminal.print_note(f"chosen: {', '.join(plan.chosen)}")
    from falconet.runs import execute

    result = execute(plan, callbacks=terminal.watch(plan.config.model.name))
    if result.unreadable:
        first = result.unreadable[0]
        terminal.print_note(
            f"skipped {len(result.unreadable)} unreadable samples, the first: {first.file} ({first.reason})"
        )
    if json:
        from falconet.schema import to_mapping

        facts = {"out": str(result.out), "model": result.model, "epochs": result.epochs, "seconds": result.seconds}
        judged = {"best_epoch": result.best_epoch, "val": to_mapping(result.val), "test": to_mapping(result.test)}
        terminal.print_json({**facts, **judged})
        return
    terminal.print_line(describe_evaluation(result.test))
    made = f"{result.epochs} epochs in {result.seconds:.1f} s; kept epoch {result.best_epoch}"
    terminal.print_line(f"{made}; report: {result.out / 'report.html'}")


def describe_evaluation(evaluation: Any) -> str:
    """Return an evaluation's headline."""
    low, high = evaluation.accuracy_ci
    return (
        f"{evaluation.split} accuracy {evaluation.accuracy:.2%} (95%: {low:.2%} – {high:.2%}, n = {evaluation.n:,}), "
        f"macro recall {evaluation.macro_recall:.2%}, macro F1 {evaluation.macro_f1:.2%}"
    )


@app.command()
def evaluate(
    model: ModelFolder,
    source: Source,
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "test",
    follow: Follow = False,
    settings: Assignments = None,
    data_root: DataRoot = None,
    strict: Strict = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Judge a trained model on a data set."""
    from falconet.artifact import check_artifact
    from falconet.catalog import check_source

    check_artifact(model)
    check_source(source)
    from falconet import evaluation, terminal

    asked = ask_data(settings, None, follow, strict)["data"]
    result = evaluation.evaluate(model, source, split=split, data_root=data_root, settings=asked)
    if json:
        from falconet.schema import to_mapping

        terminal.print_json(to_mapping(result))
        return
    terminal.print_line(describe_evaluation(result))
    terminal.print_line(f"log-loss {result.log_loss:.4f} nats, expected calibration error {result.ece:.2%}")
    if result.unreadable:
        terminal.print_line(f"skipped {len(result.unreadable)} unreadable files")
    rows = [
        (row.name, f"{row.precision:.2%}", f"{row.recall:.2%}", f"{row.f1:.2%}", f"{row.support:,}")
        for row in result.per_class
    ]
    terminal.print_table(("class", "precision", "recall", "F1", "samples"), rows)


@app.command()
def predict(
    model: ModelFolder,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE|FOLDER...", help="Images, .wav or .txt, and folders of them.")
    ],
    top: Annotated[int, typer.Option(help="Candidates for each file.", min=1)] = 3,
    out: Annotated[Path | None, typer.Option(help="Write a table: .csv, .jsonl or .parquet.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Classify files."""
    from falconet.artifact import check_artifact
    from falconet.errors import PathError

    check_artifact(model)
    for file in files:
        if not file.exists():
            raise PathError(f"no such file or folder: {file}")
    from falconet import tables

    if out:
        tables.check_table_path(out)
    from falconet import evaluation, terminal
    from falconet.schema import to_mapping

    result = evaluation.predict(model, files, top=top)
    for item in result.skipped:
        terminal.print_note(f"skipped {item.file}: {item.reason}")
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

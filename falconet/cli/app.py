"""The typer application, the options that several verbs share, and its exit codes."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from falconet import interruption
from falconet.errors import ConfigError, FalconetError, StorageError, lacks_memory
from falconet.escaping import escape_line, escape_lines

app = typer.Typer(
    name="falconet",
    help="Train, evaluate, shrink, explain and ship small models of images, series and texts.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]
"""Base class of all errors of usage that typer itself raises; it keeps the class in a private module."""

_INTERRUPTED = 130
"""Exit code that typer returns after Ctrl-C."""

_SPINS = "2000"
"""Rounds for which a thread of torch's spins, waiting for others, before it sleeps.

By default it is some hundred thousand, milliseconds, in which it takes the processor from those that it waits for
wherever other work runs beside: one run beside other work took 111 s so, and 29 s with this. Steps on a machine of
their own took as long with it as without.
"""

Source = Annotated[
    str,
    typer.Argument(
        help="A name (digits, mnist, cifar10, ...), hf:owner/name, or a path: folder of classes, table of files, texts "
        "or series (.csv, .tsv, .jsonl, .parquet), .ts, .npz, IDX folder."
    ),
]
ModelFolder = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of a trained model, or hf:owner/name[@revision].")
]
DataRoot = Annotated[
    Path | None, typer.Option(help="Folder of named data sets, which are downloaded to it.", envvar="FALCONET_DATA")
]
Groups = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column of groups, such as persons, that no split divides.")
]
Follow = Annotated[
    bool, typer.Option("--follow", help="Also read files outside the source, by links, .. or absolute paths.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="One setting, such as data.columns.label=intent."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse unreadable files instead of skipping them.")]
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage."""
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            # File names may hold what the terminal's encoding cannot show.
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if "WORLD_SIZE" not in os.environ:
        # As Ctrl-C: what is done so far is kept. Of several processes, whoever started them ends the others.
        interruption.watch_signals(signal.SIGTERM)
    interruption.watch_signals(signal.SIGINT)
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = _SPINS  # Read when torch is loaded.
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # A second one, while the first was reported.
        code = 1
    interruption.unwatch()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError:
            # Nobody reads any more: what is still to be written must not fail the interpreter's own flush.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _open_streams() -> None:
    """Let the descriptors 0 to 2 lead nowhere where they are closed, lest the next file that is opened become one."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; a user's mistake is one line on standard error."""
    interruption.forget()
    try:
        code = app(arguments or ["--help"], prog_name="falconet", standalone_mode=False)
        _note_lacking()
        if code == _INTERRUPTED:
            return fail("stopped", 1)
        return code if isinstance(code, int) else 0
    except (FalconetError, _CommandLineError) as error:
        if "--debug" in arguments:
            _print_traceback()
        return _report(error, arguments)
    except (KeyboardInterrupt, typer.Abort):
        return fail("stopped", 1)
    except BrokenPipeError:
        return 1
    except Exception as error:
        if "--debug" in arguments:
            _print_traceback()
        # Python asks the system whether a file is there, which refuses a name that no file can have.
        return fail(_describe_unexpected(error), 2 if getattr(error, "errno", None) == errno.ENAMETOOLONG else 1)


def _describe_unexpected(error: Exception) -> str:
    """Return the message for an unexpected error: lack of memory, which file, or where to look."""
    if lacks_memory(error):
        found = str(error) or type(error).__name__
        return f"out of memory ({found}): free some, or let this process have more (ulimit -v)"
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return f"unexpected {type(error).__name__}: {error} (--debug shows where)"


def _note_lacking() -> None:
    """Say which characters of pictures no installed font has, if anything was drawn."""
    drawing = sys.modules.get("falconet.data.drawing")
    if drawing is not None and (lacking := drawing.describe_lacking()):
        _write_error(f"{escape_line(lacking)}\n")
        drawing.LACKING.clear()


def _report(error: Exception, arguments: list[str]) -> int:
    """Print an error's one line and return its exit code."""
    if isinstance(error, FalconetError):
        return fail(_name_option(str(error), arguments), error.exit_code)
    message = error.format_message()  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "falconet"
    return fail(f"{message} (see {command} --help)", 2)


_OPTIONS = {
    "if_exists='resume'": "--resume",
    "if_exists='overwrite'": "--overwrite",
    "split='all'": "--split all",
    "with synthetic=": "with --synthetic ",
    "what `models` says": "what --models says",
    "from 0 to seeds - 1": "from 0 to --seeds - 1",
    "choose another out": "choose another --out",
    "leave out strict": "leave out --strict",
    "leave tta out": "leave --tta out",
}
"""What errors advise in terms of functions -> the same on the command line."""
_SETTING = re.compile(r"(?<![-\w'\"])([Ss])et (?=(?:augmentation|compression|data|model|training)\.[\w.]+=)")
"""What stands before a setting with its value where one is advised, and not quoted."""


def name_settings(text: str) -> str:
    """Return an advice in the words of the command line, on which settings are options."""
    return _SETTING.sub(lambda found: "--set " if found[1] == "s" else "Try --set ", text)


def _name_option(message: str, arguments: list[str]) -> str:
    """Return an error in the words of the command line: the options of its verb, where it names arguments."""
    for argument, option in _OPTIONS.items():
        message = message.replace(argument, option)
    name, colon, rest = message.partition(": ")
    if name in {argument.rstrip("/") for argument in arguments[1:]}:
        # It begins with what the user named, such as a folder, whatever options are called.
        return f"{name}{colon}{name_settings(rest)}"
    message = name_settings(message)
    name, colon, rest = message.partition(": ")
    verb = getattr(typer.main.get_command(app), "commands", {}).get(arguments[0] if arguments else "")
    for parameter in verb.params if verb is not None else ():
        option = parameter.opts[0]
        if parameter.name == name and option.startswith("--"):
            return f"{option}{colon}{rest}"
    return message


_MAX_LINE = 4000
"""Most characters of an error's line; longer ones are cut in the middle."""


def fail(message: str, code: int) -> int:
    """Print an error's one line, whatever the names hold that it quotes, and return its exit code."""
    line = escape_line(" ".join(message.split()))
    if len(line) > _MAX_LINE:
        # A name of a hostile file may be megabytes long; what to do stands at the end.
        line = f"{line[: _MAX_LINE // 2]} ... {line[-_MAX_LINE // 2 :]}"
    _write_error(f"falconet: {line}\n")
    return code


def _print_traceback() -> None:
    """Print where the error that is being handled came from."""
    _write_error(escape_lines(traceback.format_exc()))


def _write_error(text: str) -> None:
    """Write to standard error, where there is one that is still read."""
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(text)


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
    """Train, evaluate, shrink, explain and ship small models of images, series and texts."""


def check_picture(option: str, path: Path | None) -> None:
    """Raise ConfigError unless a picture is to have the name of one, StorageError where it could not be written."""
    if path and path.suffix.lower() != ".png":
        raise ConfigError(f"{option}: wanted a file name ending in .png, found {path}")
    if path:
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise StorageError(f"{option}: cannot write {path}: {folder} is no folder that may be written to")


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


def describe_evaluation(evaluation: Any) -> str:
    """Return an evaluation's headline."""
    low, high = evaluation.accuracy_ci
    return (
        f"{evaluation.split} accuracy {evaluation.accuracy:.2%} (95%: {low:.2%} – {high:.2%}, n = {evaluation.n:,}), "
        f"macro recall {evaluation.macro_recall:.2%}, macro F1 {evaluation.macro_f1:.2%}"
    )

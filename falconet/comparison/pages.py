"""Files of a comparison: a page, Markdown, CSV, JSON and the plots."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from falconet.comparison.plots import AXES, draw_front
from falconet.comparison.results import LEVEL, Comparison, ComparisonPair, ComparisonRow
from falconet.comparison.tables import COMPARISON_COLUMNS, PAIR_COLUMNS, format_pair, format_row
from falconet.data.drawing import encode_figure
from falconet.escaping import escape_line, escape_markdown
from falconet.model_files import redact_name, redact_settings
from falconet.report.html import render_page
from falconet.report.pictures import to_svg
from falconet.schema import to_mapping
from falconet.storage import format_json, swap


def write_comparison(comparison: Comparison) -> None:
    """Write all files of a comparison, without paths of this machine. Raises StorageError."""
    out = comparison.out
    facts = redact_settings(comparison.facts())
    source, settings = redact_name(comparison.source), redact_settings(comparison.settings)
    comparison = replace(comparison, source=source, settings=settings)
    plots = {_plot_name(cost): encode_figure(draw_front(comparison.rows, cost)) for cost in _list_plots(comparison)}
    texts = {
        "comparison.json": format_json(facts),
        "comparison.csv": _render_csv(comparison.rows),
        "comparison.md": _render_markdown(comparison),
        "comparison.html": _render_comparison(comparison),
    }
    written = plots | {name: text.encode("utf-8", "backslashreplace") for name, text in texts.items()}
    swap(out, written, map(_plot_name, AXES))  # Where all models failed, plots of an earlier call would be of others.


def _list_plots(comparison: Comparison) -> list[str]:
    """Return the costs for which there is something to draw."""
    return list(AXES) if any(row.val_accuracy is not None for row in comparison.rows) else []


def _plot_name(cost: str) -> str:
    return f"accuracy-{cost.removesuffix('_ms')}.png"


def _render_comparison(comparison: Comparison) -> str:
    """Return the page: no script, no request to anywhere."""
    plots = [
        to_svg(partial(draw_front, comparison.rows, cost), f"Accuracy over {AXES[cost][0]}; the table has the figures")
        for cost in _list_plots(comparison)
    ]
    return render_page(
        "falconet.comparison",
        title=f"{len(comparison.rows)} models on {Path(comparison.source).name}",
        comparison=comparison,
        columns=COMPARISON_COLUMNS,
        rows=[(row, format_row(row)) for row in comparison.rows],
        plots=plots,
        pair_columns=PAIR_COLUMNS,
        pairs=[(pair, format_pair(pair)) for pair in comparison.pairs],
        level=LEVEL,
        means=_describe_means(comparison),
    )


def _render_csv(rows: Sequence[ComparisonRow]) -> str:
    """Return the rows with the keys of the JSON file; unknown values are empty, fronts are joined by spaces."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(to_mapping(rows[0])), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells = {**to_mapping(row), "front": " ".join(row.front)}
        writer.writerow({key: escape_line(cell) if isinstance(cell, str) else cell for key, cell in cells.items()})
    return buffer.getvalue()


def _render_markdown(comparison: Comparison) -> str:
    """Return the tables and plots as Markdown."""
    title = f"# {len(comparison.rows)} models on {escape_markdown(Path(comparison.source).name)}"
    parts = [title, _describe_evaluating(comparison), *map(escape_markdown, comparison.notes)]
    parts.append(_lay_out(COMPARISON_COLUMNS, [format_row(row) for row in comparison.rows]))
    parts += [f"![Accuracy over {AXES[cost][0]}]({_plot_name(cost)})" for cost in _list_plots(comparison)]
    if comparison.pairs:
        parts.append(_lay_out(PAIR_COLUMNS, [format_pair(pair) for pair in comparison.pairs]))
        parts.append(_describe_tests(comparison.pairs))
    return "\n\n".join(parts) + "\n"


def _describe_evaluating(comparison: Comparison) -> str:
    """Return what the figures of the table are."""
    return (
        f"{comparison.n:,} test samples of {comparison.classes} classes. {_describe_means(comparison)} Time and energy "
        "are those of one "
        "training; latency is the median for one sample on one thread in torch, and in the fastest runtime that is "
        "installed, all networks answering in turns. ◆: no model is both cheaper and better in validation; two whose "
        "difference in "
        "speed cannot be told count as equally fast."
    )


def _describe_means(comparison: Comparison) -> str:
    """Return what accuracies are means of, as sentences."""
    runs = "Means over a model's runs, with the std between them where there are several."
    return f"{runs} Validation accuracy is the mean over {comparison.folds} folds." if comparison.folds else runs


def _describe_tests(pairs: Sequence[ComparisonPair]) -> str:
    """Return what the tests of pairs say."""
    significant = sum(pair.significant for pair in pairs)
    return (
        f"{significant} of {len(pairs)} differences are significant at the {LEVEL:.0%} level, corrected for all pairs "
        "(Holm, 1979). The test allows for the choice of test samples, which the models share, and of seeds, which "
        "they do not (Gallas, Pennello, Myers, 2007)."
    )


def _lay_out(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    rule = " | ".join(["---", *["---:"] * (len(columns) - 1)])
    head, *lines = [f"| {' | '.join(map(escape_markdown, line))} |" for line in (columns, *rows)]
    return "\n".join([head, f"| {rule} |", *lines])

"""The rows of a comparison as text, for the terminal, Markdown and the page alike."""

from __future__ import annotations

from falconet.comparison.results import ComparisonPair, ComparisonRow

_MARK = " ◆"
"""Mark beside a cost on whose Pareto front a model is."""
COMPARISON_COLUMNS = (
    "model", "validation accuracy", "test accuracy", "runs", "macro recall", "macro F1", "parameters", "MACs",
    "bytes", "latency", "fastest runtime", "training", "energy"
)  # fmt: skip
PAIR_COLUMNS = ("better", "than", "difference", "95% interval", "p", "p, corrected", "significant")


def format_row(row: ComparisonRow) -> tuple[str, ...]:
    """Return the cells of COLUMNS; of a model that failed, the reason and nothing more."""
    if row.failed is not None:
        return (row.model, f"failed: {row.failed}", *("" for _ in COMPARISON_COLUMNS[2:]))
    assert row.accuracy is not None
    assert row.macro_recall is not None
    assert row.macro_f1 is not None
    assert row.latency_ms is not None
    validated = "" if row.val_accuracy is None else _format_accuracy(row.val_accuracy, row.val_accuracy_std)
    marks = dict.fromkeys(row.front, _MARK)
    return (
        row.model,
        f"{validated}{f', {row.folds} folds' if row.folds else ''}",
        _format_accuracy(row.accuracy, row.accuracy_std),
        str(row.seeds),
        f"{row.macro_recall:.2%}",
        f"{row.macro_f1:.2%}",
        f"{row.params:,}",
        f"{row.macs:,}{marks.get('macs', '')}",
        f"{row.bytes:,}{marks.get('bytes', '')}",
        f"{row.latency_ms:.2f} ms{marks.get('latency_ms', '')}",
        "" if row.fastest_ms is None else f"{row.fastest_ms:.2f} ms, {row.fastest}",
        "" if row.seconds is None else f"{row.seconds:,.1f} s",
        "" if row.energy_wh is None else f"{row.energy_wh:.3g} Wh",
    )


def _format_accuracy(mean: float, std: float | None) -> str:
    """Return an accuracy with the std between runs, where there are several."""
    between = "" if std is None else f" ± {100 * std:.2f}"
    return f"{100 * mean:.2f}{between} %"


def format_pair(pair: ComparisonPair) -> tuple[str, ...]:
    """Return the cells of PAIR_COLUMNS; differences in percentage points."""
    low, high = (100 * end for end in pair.interval)
    return (
        pair.first,
        pair.second,
        f"{100 * pair.difference:+.2f}",
        f"{low:+.2f} to {high:+.2f}",
        _format_probability(pair.p_value),
        _format_probability(pair.p_corrected),
        "yes" if pair.significant else "no",
    )


def _format_probability(value: float) -> str:
    """Return a p-value with three decimals."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"

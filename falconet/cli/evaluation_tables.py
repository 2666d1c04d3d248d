"""What `falconet evaluate` prints: figures with their intervals, classes, and whatever else was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from falconet.terminal import print_line, print_table

if TYPE_CHECKING:
    from falconet.evaluation import Costs, Evaluation, Robustness
    from falconet.evaluation.confidence import Abstention, Answered
    from falconet.evaluation.outliers import Outliers
    from falconet.evaluation.paired import PairedComparison
    from falconet.evaluation.slices import Slices


def print_evaluation(result: Evaluation) -> None:
    """Print the headline figures with their intervals, the classes, then whatever else was asked for."""
    print_line(f"{result.split} split, {result.n:,} samples")
    print_table(("metric", "value", "95% CI low", "high"), _list_figures(result))
    print_line()
    rows = [
        (
            row.name,
            *(_format_fraction(part) for part in (*row.scores, row.average_precision, row.roc_auc)),
            f"{row.support:,}",
        )
        for row in result.per_class
    ]
    print_table(("class", "precision", "recall", "F1", "average precision", "ROC AUC", "samples"), rows)
    if result.abstention:
        _print_abstention(result.abstention)
    if result.against:
        _print_paired(result.against)
    if result.slices:
        _print_slices(result.slices)
    if result.ood:
        _print_outliers(result.ood)
    if result.robustness:
        _print_robustness(result.robustness)
    if result.costs:
        _print_costs(result.costs)


def _list_figures(result: Evaluation) -> list[tuple[str, ...]]:
    """Return headline figures as rows of text: name, value and interval."""
    fractions = {
        "accuracy": result.accuracy,
        "macro_precision": result.macro_precision,
        "macro_recall": result.macro_recall,
        "macro_f1": result.macro_f1,
    }
    losses = {"log_loss": result.log_loss, "brier": result.brier}
    titles = {"macro_f1": "macro F1", "log_loss": "log-loss in nats", "brier": "Brier score (0 to 2)"}
    rows: list[tuple[str, ...]] = []
    for name, value in {**fractions, **losses}.items():
        style = ".2%" if name in fractions else ".4f"
        interval = result.intervals[name]
        ends = [format(end, style) for end in interval] if interval else ["-", "-"]
        rows.append((titles.get(name, name.replace("_", " ")), format(value, style), *ends))
    rows.append(("expected calibration error", f"{result.ece:.2%}", "", ""))
    rows.append(("area under the risk–coverage curve", f"{result.aurc:.2%}", "", ""))
    return rows


def _format_fraction(fraction: float | None) -> str:
    """Return a fraction in percent; a dash where there is none."""
    return "-" if fraction is None else f"{fraction:.2%}"


def _format_interval(interval: tuple[float, float] | None) -> str:
    """Return the ends of an interval of fractions; a dash where there is none."""
    return "-" if interval is None else f"{interval[0]:.2%} – {interval[1]:.2%}"


def _print_abstention(found: Abstention) -> None:
    """Print the confidence threshold for the wanted accuracy, and its coverage."""
    print_line()
    if found.threshold is None or found.chosen is None or found.judged is None:
        print_line(f"accuracy {found.precision:.2%}: no confidence gives it; ask for less")
        return
    print_line(f"accuracy {found.precision:.2%} wanted: answers from a confidence of {found.threshold:.4f} on")
    rows = [("chosen", *_list_answered(found.chosen)), ("evaluated", *_list_answered(found.judged))]
    print_table(("", "split", "answered", "coverage", "accuracy", "95%"), rows)
    if found.chosen.split == found.judged.split:
        print_line("chosen and evaluated on the same samples, which flatters it: expect less elsewhere")


def _list_answered(found: Answered) -> tuple[str, ...]:
    """Return the row of a split: its predictions above the threshold, coverage and accuracy."""
    accuracy, interval = _format_fraction(found.accuracy), _format_interval(found.accuracy_ci)
    return found.split, f"{found.n:,}", f"{found.coverage:.2%}", accuracy, interval


def _print_paired(paired: PairedComparison) -> None:
    """Print two models' results side by side, with a test of their difference."""
    print_line()
    print_line(f"against {paired.other}: {paired.accuracy:.2%} to {paired.other_accuracy:.2%}, n = {paired.n:,}")
    ends = paired.difference_ci
    interval = f" (95%: {100 * ends[0]:+.2f} – {100 * ends[1]:+.2f})" if ends else ""
    print_line(f"difference {100 * paired.difference:+.2f} points{interval}, p = {paired.p_value:.2g} (McNemar, exact)")
    print_table(
        ("", "the other right", "the other wrong"),
        [
            ("this one right", f"{paired.both:,}", f"{paired.only_this:,}"),
            ("this one wrong", f"{paired.only_other:,}", f"{paired.neither:,}"),
        ],
    )


_SLICES = 20
"""Most slices that are shown, the worst ones."""


def _print_slices(found: Slices) -> None:
    """Print the worst slices of a split."""
    print_line()
    rows = [
        (part.value or "(nothing)", f"{part.accuracy:.2%}", _format_interval(part.accuracy_ci), f"{part.n:,}")
        for part in found.slices
    ]
    few = ["few" if part.few else "" for part in found.slices]
    shown = [(*row, mark) for row, mark in zip(rows, few, strict=True)][:_SLICES]
    print_table((found.column, "accuracy", "95%", "samples", ""), shown)
    if len(rows) > _SLICES:
        print_line(f"and {len(rows) - _SLICES} more; --json lists all")


def _print_outliers(found: Outliers) -> None:
    """Print how well scores tell a model's own samples from those of another source."""
    print_line()
    skipped = f", {found.unreadable} unreadable" if found.unreadable else ""
    print_line(f"out of distribution: {found.source} ({found.split}, {found.n:,} samples{skipped})")
    rows = [
        (name, f"{score.auroc:.2%}", f"{score.fpr95:.2%}")
        for name, score in (("max softmax probability", found.max_probability), ("energy", found.energy))
    ]
    print_table(("score", "AUROC", "FPR at 95% TPR"), rows)


def _print_robustness(robustness: Robustness) -> None:
    """Print accuracies under corruptions, a row each, and under attacks."""
    from falconet.evaluation.robustness import tabulate_corruptions

    print_line()
    print_line(
        f"corrupted (n = {robustness.n:,} each): mean accuracy {robustness.mean_corruption_accuracy:.2%}, "
        f"clean {robustness.clean_accuracy:.2%}"
    )
    rows = [
        (name, *(f"{row.accuracy:.2%}" for row in found), f"{sum(row.accuracy for row in found) / len(found):.2%}")
        for name, found in tabulate_corruptions(robustness).items()
    ]
    print_table(("corruption", *(f"severity {number}" for number in range(1, 6)), "mean"), rows)
    print_line()
    print_line(f"attacked: {robustness.attacks_note}")
    attacks = list(dict.fromkeys(row.attack for row in robustness.attacks))
    if attacks:
        epsilons = list(dict.fromkeys(row.epsilon for row in robustness.attacks))
        found = {(row.attack, row.epsilon): f"{row.accuracy:.2%}" for row in robustness.attacks}
        rows = [(f"{epsilon:.4f}", *(found[attack, epsilon] for attack in attacks)) for epsilon in epsilons]
        print_table(("epsilon (of pixels in 0..1)", *attacks), rows)


def _print_costs(costs: Costs) -> None:
    """Print the costs of predictions."""
    print_line()
    print_line(f"costs of answers, from raw samples in memory to logits (threads of torch: {costs.threads})")
    latencies = (("1", costs.latency_ms), (f"{costs.batch}", costs.batch_latency_ms))
    rows = [
        (f"batch of {size}", f"{value.p50:.3f} ms", f"{value.p95:.3f} ms", f"{value.p99:.3f} ms", f"{value.calls:,}")
        for size, value in latencies
    ]
    print_table(("latency", "p50", "p95", "p99", "calls"), rows)
    print_line(
        f"cold start {costs.cold_start_seconds:.2f} s from the start of a process to its first answer "
        f"(median of {len(costs.cold_starts)})"
    )
    if costs.peak_bytes is not None and costs.import_bytes is not None:
        print_line(
            f"peak memory {costs.peak_bytes / 1e6:.0f} MB with a batch of {costs.batch}, of which "
            f"{costs.import_bytes / 1e6:.0f} MB are there once torch is imported"
        )
    if costs.energy is None:
        print_line("energy: not known; codecarbon (pip install 'falconet[energy]') is missing or gave no figures")
    else:
        parts = "; ".join(costs.energy.sources)
        wh = costs.energy.wh_per_1000
        print_line(f"energy {wh:.3g} Wh for 1,000 answers, of the whole machine, {costs.energy.basis} ({parts})")

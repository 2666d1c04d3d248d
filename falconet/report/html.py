"""The HTML page, from the templates in `page/`: a skeleton, and a part for each question that a reader has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from falconet.escaping import escape_page
from falconet.evaluation import Evaluation
from falconet.evaluation.evaluation import ClassReport
from falconet.explanation.reasons import Reasons
from falconet.metrics.curves import Curve, Points
from falconet.modalities import Modality, modality_of
from falconet.report.adapters import ADAPTERS, ReportAdapter, draw_overlay
from falconet.report.curves import draw_layer_stats
from falconet.report.facts import ModelReport
from falconet.report.pictures import Picture, draw_sparkline, encode_picture, show_learning_curves, to_svg
from falconet.report.quality import (
    show_confusion,
    show_coverage,
    show_precision_recall,
    show_reliability,
    show_roc,
)
from falconet.schema import flatten
from falconet.units import format_epochs, format_loss

SECTIONS = {
    "identity": "Model details",
    "input": "Input",
    "quality": "Evaluation",
    "failures": "Errors",
    "certainty": "Calibration",
    "costs": "Efficiency",
    "training": "Training",
    "reasons": "Explanations",
    "origin": "Provenance",
}
"""Sections on a model, in order: name of the template -> heading."""

_NAMED = 20
"""Most classes with numbers in the confusion matrix and names that are not folded away; of more, it is a picture."""
_CONFUSIONS = 10


@dataclass(frozen=True)
class Tile:
    """One headline figure."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class _Model:
    """Content of the templates for one model: its facts, and pictures and words made from them."""

    key: str
    """Prefix of all ids in the model's part of the page."""
    report: ModelReport
    modality: Modality
    adapter: ReportAdapter
    """Display of the model's samples."""
    headline: tuple[Tile, ...]
    figures: tuple[Tile, ...]
    certainty: tuple[Tile, ...]
    trust: tuple[Picture, ...]
    """Reliability diagram: accuracy over confidence."""
    tradeoffs: tuple[Picture, ...]
    """Precision–recall and ROC curves, class by class."""
    costs: tuple[Tile, ...]
    trustworthiness: tuple[Tile, ...]
    """Figures of how far the explanations can be trusted."""
    confusions: tuple[tuple[str, str, int], ...]
    classes: tuple[ClassReport, ...]
    """Classes in the order in which they are listed."""
    matrix: Picture | None
    """Picture of the confusion matrix; None where a table shows it."""
    curves: tuple[Picture, ...]
    layer_stats: Picture | None


def render_html(reports: Sequence[ModelReport], title: str) -> str:
    """Return one page about one model or several: no script, no request to anywhere."""
    models = [_describe(report, f"model-{number}") for number, report in enumerate(reports, start=1)]
    return render_page("falconet.report", title=title, models=models)


def render_page(package: str, **values: Any) -> str:
    """Return `page/page.html.jinja` of a package, filled in; style, macros and filters are those of all pages."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name, "page") for name in (package, "falconet.report")]),
        autoescape=True,
        finalize=escape_page,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": format_percent,
        "fraction": _format_fraction,
        "interval": _format_interval,
        "area": _format_area,
        "number": "{:,}".format,
        "values": _format_values,
        "bytes": format_bytes,
        "epochs": format_epochs,
        "loss": format_loss,
        "picture": encode_picture,
        "sparkline": draw_sparkline,
        "overlay": draw_overlay,
        "scale": _to_shade,
    }
    environment.globals |= {"flatten": flatten, "named": _NAMED, "sections": list(SECTIONS.items())}
    return environment.get_template("page.html.jinja").render(**values)


def _describe(report: ModelReport, key: str) -> _Model:
    """Word and draw what a page shows of a model."""
    matrix, layer_stats = _show_matrix(report.test), _show_layer_stats(report)
    # A solution has no curve that could be drawn.
    drawn = report.history and not report.linear_probe
    curves = show_learning_curves(report.history, report.config.provenance.best_epoch) if drawn else ()
    return _Model(
        key=key,
        report=report,
        modality=modality_of(report.config.input),
        adapter=ADAPTERS[report.config.input.kind],
        headline=_list_headline(report),
        figures=_list_figures(report),
        certainty=_list_certainty(report),
        trust=tuple(picture.within(key) for picture in _show_trust(report.test)),
        tradeoffs=tuple(picture.within(key) for picture in _show_tradeoffs(report)),
        costs=_list_costs(report),
        trustworthiness=_list_trustworthiness(report.reasons),
        confusions=list_confusions(report.test),
        classes=_rank_classes(report.test),
        matrix=matrix and matrix.within(key),
        curves=tuple(picture.within(key) for picture in curves),
        layer_stats=layer_stats and layer_stats.within(key),
    )


def _list_headline(report: ModelReport) -> tuple[Tile, ...]:
    """Return what a reader in a hurry wants to know."""
    return (
        _rate_accuracy(report.test),
        Tile("parameters", format_count(report.params), "trainable"),
        Tile("weights on disk", format_bytes(report.bytes)),
        Tile("latency", f"{report.latency.p50:.2f} ms", "median for one sample, one thread"),
    )


def _rate_accuracy(test: Evaluation) -> Tile:
    """Return the accuracy with its interval."""
    return Tile("test accuracy", format_percent(test.accuracy), f"{_format_interval(test.accuracy_ci)} (95%)")


def _list_figures(report: ModelReport) -> tuple[Tile, ...]:
    """Return the figures of merit on the test split, and the accuracy that the epoch was chosen by."""
    test, val = report.test, report.val
    origin = report.config.provenance
    epoch = "" if report.shrinking or report.linear_probe else f"epoch {origin.best_epoch}, "
    if origin.refit:
        epoch = "of the fit before the refit, " + epoch
    if origin.refit_teacher:
        epoch = "flattered: the teacher had learned from these samples, " + epoch
    ranked = [Tile(f"top-{k} accuracy", format_percent(fraction)) for k, fraction in test.top_k.items()]
    return (
        _rate_accuracy(test),
        Tile("macro precision", format_percent(test.macro_precision), _note_interval(test, "macro_precision")),
        Tile("macro recall", format_percent(test.macro_recall), _note_interval(test, "macro_recall")),
        Tile("macro F1", format_percent(test.macro_f1), _note_interval(test, "macro_f1")),
        *ranked,
        Tile("validation accuracy", format_percent(val.accuracy), f"{epoch}n = {val.n:,}"),
    )


def _note_interval(test: Evaluation, figure: str) -> str:
    """Return the interval of a fraction; nothing where there is none."""
    interval = test.intervals[figure]
    return f"{_format_interval(interval)} (95%)" if interval else ""


def _list_certainty(report: ModelReport) -> tuple[Tile, ...]:
    """Return how far probabilities can be trusted."""
    test, change = report.test, report.calibration
    return (
        Tile(
            "calibration error", format_percent(test.ece), f"{format_percent(change.test.ece_before)} without, 15 bins"
        ),
        Tile("temperature", f"{change.temperature:g}", change.reason or f"fitted to {change.n:,} validation samples"),
        Tile("log-loss", f"{test.log_loss:.4f}", f"nats; {np.log(len(test.per_class)):.4f} by even guessing"),
        Tile("Brier score", f"{test.brier:.4f}", "0 is best, 2 worst"),
        Tile("area under the risk–coverage curve", format_percent(test.aurc), "0 is best"),
    )


def _show_trust(test: Evaluation) -> tuple[Picture, Picture]:
    """Return the reliability diagram and the curve of accuracy over coverage."""
    lower, upper, confidence, accuracy, count = (
        np.array([getattr(item, name) for item in test.reliability])
        for name in ("lower", "upper", "confidence", "accuracy", "count")
    )
    coverage, kept = (np.array([getattr(point, name) for point in test.coverage]) for name in ("coverage", "accuracy"))
    return (
        show_reliability(lower, upper, confidence, accuracy, count),
        show_coverage(coverage, kept),
    )


def _show_tradeoffs(report: ModelReport) -> tuple[Picture, ...]:
    """Return precision–recall and ROC curves; none where the test split has samples of one class alone."""
    if not report.roc:
        return ()
    fractions = {row.name: row.support / report.test.n for row in report.test.per_class}
    found = report.precision_recall, report.roc
    lines, areas = [_trace(curves) for curves in found], [_measure_areas(curves) for curves in found]
    return show_precision_recall(lines[0], areas[0], fractions), show_roc(lines[1], areas[1])


def _trace(curves: Mapping[str, Curve]) -> dict[str, tuple[Points, Points]]:
    """Return the lines of curves by name."""
    return {name: (curve.x, curve.y) for name, curve in curves.items()}


def _measure_areas(curves: Mapping[str, Curve]) -> dict[str, float]:
    """Return the areas under curves by name."""
    return {name: curve.area for name, curve in curves.items()}


def _list_costs(report: ModelReport) -> tuple[Tile, ...]:
    """Return size, arithmetic, memory and time for one sample."""
    latency = report.latency
    return (
        Tile("parameters", format_count(report.params), f"{report.params:,}, trainable"),
        Tile("multiply-accumulates", format_count(report.macs), f"{report.macs:,} for one sample"),
        Tile("weights on disk", format_bytes(report.bytes)),
        Tile("activations", format_bytes(report.complexity.activation_bytes), "all layers, one sample"),
        Tile(
            "latency", f"{latency.p50:.2f} ms", f"median, one thread; p95 {latency.p95:.2f}, p99 {latency.p99:.2f} ms"
        ),
        *_list_fastest(report),
    )


def _list_fastest(report: ModelReport) -> tuple[Tile, ...]:
    """Return which runtime is the fastest, where they were timed."""
    if not report.timed:
        return ()
    return (Tile("fastest runtime", report.fastest, f"{report.latencies[report.fastest].p50:.2f} ms"),)


def _list_trustworthiness(reasons: Reasons | None) -> tuple[Tile, ...]:
    """Return how probabilities follow explanations, and how similar these are with random weights."""
    if reasons is None or not reasons.scores:
        return ()
    score, floor = reasons.scores
    return (
        Tile("insertion", f"{score.insertion_auc:.3f}", "mean probability as the best evidence comes first"),
        Tile("deletion", f"{score.deletion_auc:.3f}", "as it goes first"),
        Tile(
            "insertion − deletion",
            _format_difference(score.gain),
            f"{_format_difference(floor.gain)} by a random order",
        ),
        Tile("likeness without training", f"{score.randomization:.2f}", "rank correlation; near 0 is better"),
    )


def _show_matrix(test: Evaluation) -> Picture | None:
    """Return the confusion matrix as a picture where there are many classes."""
    names = [row.name for row in test.per_class]
    return show_confusion(np.array(test.confusion), names) if len(names) > _NAMED else None


def _show_layer_stats(report: ModelReport) -> Picture | None:
    """Return a picture of layer statistics over epochs; None where none were kept."""
    layer_stats = report.log.layer_stats
    if not layer_stats:
        return None
    caption = f"Losses, gradients, updates and dead units over {format_epochs(len(report.history))}"
    return Picture(to_svg(lambda: draw_layer_stats(report.history, layer_stats), caption), caption)


def _rank_classes(evaluation: Evaluation) -> tuple[ClassReport, ...]:
    """Return the classes by rising F1; those without samples, which have none, last."""
    return tuple(sorted(evaluation.per_class, key=lambda row: (not row.support, row.f1)))


def list_confusions(evaluation: Evaluation) -> tuple[tuple[str, str, int], ...]:
    """Return the most frequent confusions as (true class, predicted class, count)."""
    names = [row.name for row in evaluation.per_class]
    pairs = [
        (names[truth], names[answer], count)
        for truth, row in enumerate(evaluation.confusion)
        for answer, count in enumerate(row)
        if truth != answer and count
    ]
    return tuple(sorted(pairs, key=lambda pair: -pair[2])[:_CONFUSIONS])


def format_percent(fraction: float) -> str:
    """Return a fraction as a percentage with two decimals."""
    return f"{100 * fraction:.2f}%"


def _format_fraction(fraction: float | None) -> str:
    """Return a fraction as a percentage; a dash where there is none."""
    return "–" if fraction is None else format_percent(fraction)


def _format_area(area: float | None) -> str:
    """Return the area under a curve; a dash where there is no curve."""
    return "–" if area is None else f"{area:.3f}"


def _format_difference(value: float) -> str:
    """Return a number to three decimals, with a minus sign instead of a hyphen."""
    return f"{value:.3f}".replace("-", "−")


def _format_interval(bounds: tuple[float, float]) -> str:
    """Return an interval of fractions as percentages."""
    return f"{format_percent(bounds[0])} – {format_percent(bounds[1])}"


def _format_values(values: Sequence[float], limit: int = 3) -> str:
    """Return a few numbers, or the range of many."""
    if len(values) > limit:
        return f"{min(values):.4g} to {max(values):.4g} over {len(values)} channels"
    return ", ".join(f"{value:.4g}" for value in values)


def format_count(count: int) -> str:
    """Return a number; a long one to three digits with k, M or G (powers of 1000)."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        # What would round up to 1000 has the next unit.
        if count >= max(0.9995 * size, 10_000):
            return f"{count / size:.3g} {unit}"
    return f"{count:,}"


def format_bytes(count: int) -> str:
    """Return a size in kB or MB (powers of 1000)."""
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _to_shade(count: int, total: int) -> str:
    """Return a cell's fraction of its row as a CSS percentage; any count at all is visible."""
    return f"{max(100 * count / total, 20):.0f}%" if count else "0%"

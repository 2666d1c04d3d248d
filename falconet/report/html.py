"""The HTML page, from the template `page.html.jinja`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

from falconet.evaluation import Evaluation
from falconet.report.curves import draw_vitals
from falconet.report.facts import ModelReport
from falconet.report.pictures import draw_learning_curves, draw_sparkline, encode_picture, to_svg
from falconet.schema import flatten
from falconet.spec import ImageSpec, InputSpec, SeriesSpec

MATRIX_CLASSES = 20
CONFUSIONS = 10


def render_html(reports: Sequence[ModelReport], title: str) -> str:
    """Return one page about one model or several: no script, no request to anywhere."""
    return render_page(
        "falconet.report",
        title=title,
        reports=reports,
        curves=[draw_learning_curves(report.history, report.config.provenance.best_epoch) for report in reports],
        vitals=[draw_course(report) for report in reports],
        confusions=[list_confusions(report.test) for report in reports],
        matrix_classes=MATRIX_CLASSES,
        flatten=flatten,
    )


def render_page(package: str, **values: Any) -> str:
    """Return a package's `page.html.jinja` filled in, with the style and the filters that all pages share."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": format_percent,
        "bytes": format_bytes,
        "picture": encode_picture,
        "sparkline": draw_sparkline,
        "scale": to_shade,
        "input": describe_input,
    }
    style = resources.files("falconet.report").joinpath("style.css").read_text(encoding="utf-8")
    template = resources.files(package).joinpath("page.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(style=style, **values)


def draw_course(report: ModelReport) -> str:
    """Return the vital signs of a network's layers over epochs as SVG; nothing where none were kept."""
    if not report.course.vitals:
        return ""
    title = f"Losses, gradients, updates and dead units over {len(report.history)} epochs"
    return to_svg(lambda: draw_vitals(report.history, report.course.vitals), title)


def list_confusions(evaluation: Evaluation) -> list[tuple[str, str, int]]:
    """Return the most frequent confusions as (true class, predicted class, count)."""
    names = [row.name for row in evaluation.per_class]
    pairs = [
        (names[truth], names[answer], count)
        for truth, row in enumerate(evaluation.confusion)
        for answer, count in enumerate(row)
        if truth != answer and count
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:CONFUSIONS]


def describe_input(spec: InputSpec) -> str:
    """Return what a model takes, in words."""
    size = "×".join(map(str, spec.shape))
    if isinstance(spec, ImageSpec):
        margin = f", margin {spec.margin}" if spec.margin else ""
        return f"{size}{margin}, from images of any size"
    if isinstance(spec, SeriesSpec):
        axes = "channels × steps" if spec.bands is None else "mel bands × frames of 10 ms"
        return f"{size} ({axes}), from series of any length{f' at {spec.rate} Hz' if spec.rate else ''}"
    return f"{size} tokens of a vocabulary of {spec.vocab_size:,}, from texts of any length"


def format_percent(share: float) -> str:
    """Return a fraction as a percentage with two decimals."""
    return f"{100 * share:.2f}%"


def format_bytes(count: int) -> str:
    """Return a size in kB or MB (powers of 1000)."""
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def to_shade(count: int, total: int) -> str:
    """Return a cell's share of its row as a CSS percentage; any count at all is visible."""
    return f"{max(100 * count / total, 20):.0f}%" if count else "0%"

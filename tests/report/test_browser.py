"""The page in a real browser: silent, without requests, accessible, in both themes, on paper and on a phone."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from falconet import metrics
from falconet.evaluation import evaluate_logits
from falconet.explanation.pictures import Shown
from falconet.explanation.reasons import ClassAttribution, ExplainedPrediction
from falconet.report import Mistake, ModelReport, render_html
from falconet.report.facts import draw_up
from falconet.spec import ClassificationSpec, InputSpec, SeriesSpec, TextSpec

pytestmark = pytest.mark.slow

LIMIT = 3_000_000
"""Bytes of a report, at most."""

# A stop of the keyboard: what it is, and whether one can see that it is there.
STOP = """() => {
    const stop = document.activeElement, style = getComputedStyle(stop);
    return [stop === document.body ? '' : stop.outerHTML.slice(0, 120), parseFloat(style.outlineWidth) >= 2
            && style.outlineStyle !== 'none'];
}"""

# What must be reachable by keyboard: links, summaries, and whatever scrolls, except inside what is folded away.
REACHABLE = """() => [...document.querySelectorAll('*')].filter(one => one.checkVisibility() && (
    one.matches('a[href], summary, button, input, select') ||
    /auto|scroll/.test(getComputedStyle(one).overflowX) && one !== document.body &&
    (one.scrollWidth > one.clientWidth || one.scrollHeight > one.clientHeight)
)).map(one => one.outerHTML.slice(0, 120))"""


def invent(report: ModelReport, spec: InputSpec, names: tuple[str, ...], samples: list[Any]) -> ModelReport:
    """Return a report as if its model took `spec`; half of the answers are wrong."""
    count = len(names)
    labels = np.arange(4 * count) % count
    logits = np.eye(count, dtype=np.float32)[(labels + (np.arange(len(labels)) < 2 * count)) % count]
    logits *= 4
    test = evaluate_logits(logits, labels, names, "test")
    roc, precision_recall = (
        draw_up(curve, logits, labels, names) for curve in (metrics.roc_curve, metrics.precision_recall_curve)
    )
    mistakes = [
        Mistake(f"folder/{number}.bin", sample, names[0], names[1], 0.9) for number, sample in enumerate(samples)
    ]
    config = dataclasses.replace(report.config, input=spec, output=ClassificationSpec(names))
    assert report.reasons is not None
    reasons = dataclasses.replace(report.reasons, accounts=tuple(invent_accounts(spec, names, samples[:3])))
    return dataclasses.replace(
        report, config=config, test=test, mistakes=mistakes, roc=roc, precision_recall=precision_recall, reasons=reasons
    )


def invent_accounts(spec: InputSpec, names: tuple[str, ...], samples: list[Any]) -> Iterator[ExplainedPrediction]:
    """Yield explanations of samples by evidence at random places."""
    generator = np.random.default_rng(1)
    for number, sample in enumerate(samples):
        if spec.kind == "text":
            shown, shape = Shown("text", np.zeros(0), tuple(sample.split(" "))), (len(sample.split(" ")),)
        else:
            shown = Shown(spec.kind, sample / 255 if spec.kind == "image" else sample)
            shape = sample.shape[:2]
        said, other = (ClassAttribution(label, 0.5, shown, generator.uniform(-1, 1, shape)) for label in names[:2])
        yield ExplainedPrediction(f"folder/{number}.bin", names[number % 2], said, other)


@pytest.fixture(scope="module")
def write(explained: tuple[Path, ModelReport], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that writes a page of some kind of sample, of many classes or of two models."""
    folder = tmp_path_factory.mktemp("pages")

    @cache
    def write(kind: str) -> Path:
        path = folder / f"{kind}.html"
        path.write_text(render_html(invent_reports(kind, explained[1]), f"a page of {kind}"), encoding="utf-8")
        return path

    return write


def invent_reports(kind: str, report: ModelReport) -> list[ModelReport]:
    generator = np.random.default_rng(0)
    if kind == "series":
        waves = [generator.normal(size=(3, 5000)).astype(np.float32) for _ in range(24)]
        waves[0][:] = np.nan
        return [invent(report, SeriesSpec((3, 5000), (0.0,) * 3, (1.0,) * 3), ("rise", "fall"), waves)]
    if kind == "spectrum":
        spectra = [generator.normal(size=(40, 90)).astype(np.float32) for _ in range(3)]
        return [invent(report, SeriesSpec((40, 90), (0.0,) * 40, (1.0,) * 40), ("rise", "fall"), spectra)]
    if kind == "text":
        word = "a-very-long-word-without-any-break" * 8
        texts = [f"{word} <script>alert(1)</script>", "鉄 " * 500, ""]
        return [invent(report, TextSpec((64,), 300), ("fruit <b>", word, "鉄"), texts)]
    if kind == "many":
        photos = [generator.integers(0, 256, (200, 300, 3), dtype=np.uint8) for _ in range(24)]
        names = tuple(f"class {number} of a longer name" for number in range(100))
        return [invent(report, report.config.input, names, photos)]
    other = dataclasses.replace(report, history=report.history[:1])
    return [report, other] if kind == "two" else [report]


KINDS = ("image", "series", "spectrum", "text", "many", "two")
Opener = Callable[..., Page]


@pytest.fixture
def show(browser: Browser, write: Callable[[str], Path]) -> Iterator[Opener]:
    """Return a function that opens a page; afterwards, nothing may have been complained about or asked for."""
    complaints: list[str] = []
    contexts = []

    def show(kind: str, width: int = 1280, scheme: Any = "light") -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        address = write(kind).as_uri()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((address, "data:")) else complaints.append(f"asked for {request.url}")
            ),
        )
        page.goto(address)
        return page

    yield show
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [
        *((kind, "light") for kind in KINDS),
        ("image", "dark"),
        ("text", "dark"),
        # Other pages have the colors of these.
        *(pytest.param(kind, "dark", marks=pytest.mark.full) for kind in KINDS if kind not in {"image", "text"}),
    ],
)
def test_nothing_stands_in_the_way_of_anybody(show: Opener, kind: str, scheme: str) -> None:
    page = show(kind, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("kind", KINDS)
def test_only_tables_scroll_sideways(show: Opener, kind: str, width: int) -> None:
    page = show(kind, width=width)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize(("kind", "width"), [("image", 1280), ("many", 390)])
def test_the_keyboard_reaches_everything(show: Opener, kind: str, width: int) -> None:
    page = show(kind, width=width)
    wanted = set(page.evaluate(REACHABLE))
    stops: list[str] = []
    while True:
        page.keyboard.press("Tab")
        stop, visible = page.evaluate(STOP)
        if not stop or stop in stops:
            break
        assert visible, stop
        stops.append(stop)
    assert stops[0].startswith('<a class="skip" href="#report">')
    assert wanted <= set(stops)
    assert len(wanted) > len(page.query_selector_all("nav a")) > 5


def test_the_keyboard_opens_what_is_folded(show: Opener) -> None:
    page = show("image")
    page.focus("summary")
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('details').open")


def test_the_skip_link_leads_past_the_sections(show: Opener) -> None:
    page = show("image")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "report"


@pytest.mark.parametrize("kind", KINDS)
def test_headings_leave_no_level_out(show: Opener, kind: str) -> None:
    headings = "[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(one => Number(one.tagName[1]))"
    levels = show(kind).evaluate(headings)
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_the_theme_is_the_reader_s(show: Opener) -> None:
    color = "getComputedStyle(document.body).backgroundColor"
    dark = show("image", scheme="dark")
    assert show("image").evaluate(color) == "rgb(255, 255, 255)"
    assert dark.evaluate(color) == "rgb(16, 21, 27)"
    dark.emulate_media(media="print")
    assert dark.evaluate(color) == "rgb(255, 255, 255)"


@pytest.mark.parametrize("kind", KINDS)
def test_it_can_be_printed_whole(show: Opener, kind: str) -> None:
    page = show(kind)
    seen = "[...document.querySelectorAll('table')].map(one => one.checkVisibility())"
    assert not all(page.evaluate(seen)), "some are folded away on the screen"
    page.emulate_media(media="print")
    assert all(page.evaluate(seen))
    assert not page.is_visible("nav")
    assert page.pdf().startswith(b"%PDF")


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_small(write: Callable[[str], Path], kind: str) -> None:
    assert write(kind).stat().st_size < LIMIT

"""The page for labels in a real browser: keys, undo, what is kept and what is downloaded; no request, no complaint."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from falconet.data.label_studio import Control, _find_label
from falconet.labeling.page import PageItem, _digest, render
from falconet.labeling.tasks import show

pytestmark = pytest.mark.slow

HOSTILE = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"


def invent_items(kind: Any) -> list[PageItem]:
    """Return two samples whose labels are likely wrong, and two without labels."""
    generator = np.random.default_rng(0)
    made: dict[str, list[Any]] = {
        "image": [generator.integers(0, 256, (40, 60, 3), dtype=np.uint8) for _ in range(4)],
        "series": [generator.normal(size=(2, 3000)).astype(np.float32) for _ in range(4)],
        "text": [f"{HOSTILE} number {n}\u202e" for n in range(4)],
    }
    items = []
    for number, sample in enumerate(made[kind]):
        result = {"from_name": "tone", "to_name": kind, "type": "choices", "value": {"choices": ["bad"]}}
        annotations = [{"id": 2**60 + number, "result": [result], "lead_time": 1e-9}] if number < 2 else []
        task = {
            "id": 2**55 + number,
            "data": {"text": f"{HOSTILE} 鉄"},
            "annotations": annotations,
            "meta": [1.0, None],
        }
        label, suggested = ("bad", "good") if number < 2 else (None, "bad")
        items.append(PageItem(f"folder/{number} {HOSTILE}", task, show(sample, kind), label, suggested, 0.9))
    return items


CLASSES = ("bad", "good")
REST = '{"id": 90071992547409931, "data": {}, "annotations": []}'
Opener = Callable[[str], Page]


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[Opener]:
    """Return a function that opens a page; in the end, nothing may have been complained about or asked for."""
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 900})

    def open_page(kind: str) -> Page:
        path = tmp_path / f"{kind}.html"
        if not path.exists():
            control = Control("tone", kind)
            path.write_text(render(f"Labels of {HOSTILE}", invent_items(kind), [REST], CLASSES, control))
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((path.as_uri(), "data:", "blob:"))
                else complaints.append(f"asked for {request.url}")
            ),
        )
        page.goto(path.as_uri())
        return page

    yield open_page
    context.close()
    assert complaints == []


def count(page: Page) -> str:
    return page.inner_text("#count")


def download(page: Page) -> list[dict[str, Any]]:
    with page.expect_download() as found:
        page.click("#download")
    assert found.value.suggested_filename == "labels.json"
    tasks: list[dict[str, Any]] = json.loads(Path(found.value.path()).read_text(encoding="utf-8"))
    return tasks


@pytest.mark.parametrize("kind", ["image", "series", "text"])
def test_keys_label_and_what_is_downloaded_holds_all(open_page: Opener, kind: str) -> None:
    page = open_page(kind)
    assert page.title() == f"Labels of {HOSTILE}"
    assert page.inner_text("#why") == "Labeled bad, but looks like good (90 %)."
    page.keyboard.press("Enter")  # What is suggested.
    page.keyboard.press("Space")  # The label that there is.
    page.keyboard.press("2")  # A class's own key.
    assert count(page) == "3 of 4 labeled"
    before = [item.task for item in invent_items(kind)]
    tasks = download(page)
    assert tasks[4] == json.loads(REST)
    for old, new, label in zip(before, tasks, ["good", "bad", "good", None], strict=False):
        assert _find_label(new, "tone") == label
        kept = len(old["annotations"])
        assert {**new, "annotations": new["annotations"][:kept]} == old
    assert [task["annotations"][-1]["ground_truth"] for task in tasks[:3]] == [True, True, False]


def test_a_decision_can_be_taken_back(open_page: Opener) -> None:
    page = open_page("text")
    assert page.is_disabled("#undo")
    page.keyboard.press("1")
    page.keyboard.press("2")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("1")
    assert count(page) == "2 of 4 labeled"
    page.keyboard.press("Backspace")
    assert page.get_attribute("#classes button >> nth=1", "aria-pressed") == "true"
    page.click("#undo")
    page.keyboard.press("Backspace")
    assert count(page) == "0 of 4 labeled"
    assert [len(task["annotations"]) for task in download(page)] == [1, 1, 0, 0, 0]


def test_classes_are_found_and_added(open_page: Opener) -> None:
    page = open_page("image")
    page.keyboard.press("/")
    page.keyboard.type("goo")
    assert page.locator("#classes button").count() == 1
    page.keyboard.press("Enter")
    page.keyboard.press("/")
    page.keyboard.type("neither")
    page.keyboard.press("Enter")
    page.keyboard.press("3")
    tasks = download(page)
    assert [_find_label(task, "tone") for task in tasks[:4]] == ["good", "neither", "neither", None]


@pytest.mark.parametrize(
    ("typed", "label"),
    [
        ("Male", "male"),  # Not female, in which it is too.
        ("FEM", "female"),
        ("ale", None),  # Part of two.
        ("emale", None),  # Part of one, but not how it begins.
        ("Al", "Al"),
        ("AL", None),
        ("m", None),  # How two begin.
        ("other", "other"),
    ],
)
def test_what_is_typed_means_one_class(
    open_page: Opener, monkeypatch: pytest.MonkeyPatch, typed: str, label: str | None
) -> None:
    monkeypatch.setattr(f"{__name__}.CLASSES", ("female", "male", "mixed", "al", "Al"))
    page = open_page("image")
    page.keyboard.press("/")
    page.keyboard.type(typed)
    page.keyboard.press("Enter")
    assert count(page) == f"{int(label is not None)} of 4 labeled"
    assert _find_label(download(page)[0], "tone") == (label or "bad")
    assert page.input_value("#find") == ("" if label else typed)


def test_decisions_can_be_taken_back_after_a_reload(open_page: Opener) -> None:
    page = open_page("image")
    for key in ("1", "2", "ArrowLeft", "1"):
        page.keyboard.press(key)
    page.reload()
    page.keyboard.press("Backspace")
    assert page.get_attribute("#classes button >> nth=1", "aria-pressed") == "true"
    page.keyboard.press("Backspace")
    page.keyboard.press("Backspace")
    assert count(page) == "0 of 4 labeled"
    assert page.is_disabled("#undo")


def test_labels_of_other_samples_are_not_taken_over() -> None:
    items, control = invent_items("text"), Control("tone", "text")
    known = _digest(items, control)
    assert known == _digest(invent_items("text"), control)
    assert known != _digest(items, Control("mood", "text"))
    other = dataclasses.replace(items[0], task={**items[0].task, "data": {"text": "another"}})
    assert known != _digest([other, *items[1:]], control)
    seen = dataclasses.replace(items[0], view=show("another", "text"))
    assert known != _digest([seen, *items[1:]], control)
    later = {**items[0].task, "annotations": [{"created_at": "later"}]}
    assert known == _digest([dataclasses.replace(items[0], task=later), *items[1:]], control)


def test_labels_outlive_the_page(open_page: Opener) -> None:
    page = open_page("image")
    page.keyboard.press("Enter")
    page.close()
    again = open_page("image")
    assert count(again) == "1 of 4 labeled"
    assert again.inner_text("#note").startswith("2 of 4")
    assert _find_label(download(again)[0], "tone") == "good"


def test_clicks_do_as_keys_do(open_page: Opener) -> None:
    page = open_page("series")
    page.click("#classes button >> nth=0")
    page.keyboard.press("Enter")  # Not the button that was clicked, but what is suggested.
    assert [_find_label(task, "tone") for task in download(page)[:2]] == ["bad", "good"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["image", "series", "text"])
def test_nothing_stands_in_the_way_of_anybody(open_page: Opener, kind: str, scheme: Any) -> None:
    page = open_page(kind)
    page.emulate_media(color_scheme=scheme)
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


def test_it_fits_a_phone(open_page: Opener) -> None:
    page = open_page("text")
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 390

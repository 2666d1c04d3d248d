"""The page and the card."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from falconet import RunResult, load_dataset, train
from falconet.cli.training import show_result
from falconet.evaluation import SplitLogits
from falconet.explanation.reasons import Reasons
from falconet.report import ModelReport, render_card, render_html
from falconet.report.facts import find_mistakes
from falconet.report.html import SECTIONS, _describe, format_bytes, format_count, list_confusions
from falconet.report.pictures import encode_picture, scope_ids
from falconet.spec import ClassificationSpec

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Checks that elements nest, and gathers what the tests ask about."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href", "data", "action")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag == "img":
            self.images.append(attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def html(trained: RunResult) -> str:
    return (trained.out / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_requests_nothing(html: str) -> None:
    page = Page(html)
    assert "script" not in page.tags
    assert all(link.startswith(("#", "data:")) for link in page.links), page.links
    assert not re.search(r"url\((?!#|['\"]?#)", html)
    assert "@import" not in html


def test_the_page_says_what_the_run_was(html: str, trained: RunResult) -> None:
    assert f"{100 * trained.test.accuracy:.2f}%" in html
    for words in ("Learning curves", "Confusion matrix", "Most confident errors", "Metrics per class", "Configuration"):
        assert words in html
    for fact in ("training.learning_rate", trained.report.config.provenance.data.fingerprint, "torch", "processor"):
        assert fact in html


def test_mistakes_are_pictures_with_true_and_predicted_labels(html: str, trained: RunResult) -> None:
    images = Page(html).images[: len(trained.report.mistakes)]
    assert images
    for image, mistake in zip(images, trained.report.mistakes, strict=True):
        assert image["alt"] == f"test sample {mistake.name}: label {mistake.label}, predicted {mistake.predicted}"


@pytest.mark.slow
def test_answers_are_explained_with_pictures_and_how_far_to_believe_them(explained: tuple[Path, ModelReport]) -> None:
    html, report = (explained[0] / "report.html").read_text(encoding="utf-8"), explained[1]
    reasons, images = report.reasons, Page(html).images[len(report.mistakes) :]
    assert reasons is not None
    assert len(images) == 3 * len(reasons.accounts) == 18
    views = [images[start : start + 3] for start in range(0, len(images), 3)]
    for account, (sample, *overlays) in zip(reasons.accounts, views, strict=True):
        assert sample["alt"] == "the sample as the model sees it"
        for reason, overlay in zip((account.answer, account.other), overlays, strict=True):
            row, column = (int(place) + 1 for place in np.unravel_index(reason.shades.argmax(), reason.shades.shape))
            peak = f"strongest at row {row} of 28, column {column} of 28" if reason.shades.max() > 0 else "none"
            assert overlay["alt"] == f"evidence for {reason.label}: {peak}"
    assert f">{reasons.scores[0].gain:.3f}<".replace("-", "−") in html
    assert ("Do not rely on these pictures" in html) is not reasons.believable


@pytest.mark.slow
def test_explanations_that_are_no_better_than_chance_say_so(explained: tuple[Path, ModelReport]) -> None:
    found = explained[1].reasons
    assert found is not None
    (score, floor), accounts = found.scores, found.accounts
    worse = dataclasses.replace(score, insertion_auc=score.deletion_auc - 0.1)
    for reasons, words in (
        (Reasons("gradcam", accounts, (worse, floor)), "Do not rely on these pictures"),
        (Reasons("gradcam", note="it <broke>"), "This network was not explained: it &lt;broke&gt;"),
    ):
        assert words in render_html([dataclasses.replace(explained[1], reasons=reasons)], "a page")


def test_the_report_is_small(trained: RunResult) -> None:
    assert (trained.out / "report.html").stat().st_size < 1_000_000


@pytest.mark.slow
def test_names_from_the_data_cannot_inject_markup(trained: RunResult) -> None:
    nasty = "<script>alert(1)</script>"
    first, *others = trained.test.per_class
    test = dataclasses.replace(trained.test, per_class=(dataclasses.replace(first, name=nasty), *others))
    roc, precision_recall = (
        {nasty if name == first.name else name: curve for name, curve in curves.items()}
        for curves in (trained.report.roc, trained.report.precision_recall)
    )
    report = dataclasses.replace(trained.report, test=test, roc=roc, precision_recall=precision_recall)
    html = render_html([report], title=nasty)
    assert "<script" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.slow
def test_several_models_share_a_page(trained: RunResult) -> None:
    html = render_html(
        [trained.report, dataclasses.replace(trained.report, history=trained.report.history[:1])], title="two"
    )
    page = Page(html)
    for name in SECTIONS.values():
        assert html.count(f">{name}</h3>") == 2
    assert {link for link in page.links if link.startswith("#model-")} <= {f"#{key}" for key in page.ids}
    assert len(page.ids) == len(set(page.ids))


def test_mistakes_are_the_most_confident_first() -> None:
    split = load_dataset("digits").splits["test"]
    logits = np.zeros((len(split), 10), dtype=np.float32)
    logits[np.arange(len(split)), split.labels] = 5
    wrong = {3: 1.0, 10: 9.0, 20: 6.0}
    for index, value in wrong.items():
        logits[index] = 0
        logits[index, (split.labels[index] + 1) % 10] = value
    mistakes = find_mistakes(SplitLogits(split, logits, ()), [str(digit) for digit in range(10)])
    assert [mistake.name for mistake in mistakes] == [split.samples.name(index) for index in (10, 20, 3)]
    assert mistakes[0].predicted == str((split.labels[10] + 1) % 10)


def test_confusions_are_listed_by_number(trained: RunResult) -> None:
    names = trained.test.per_class[:3]
    small = dataclasses.replace(trained.test, per_class=names, confusion=((9, 1, 0), (4, 9, 2), (0, 0, 9)))
    assert list_confusions(small) == (("1", "0", 4), ("1", "2", 2), ("0", "1", 1))


@pytest.mark.parametrize(
    ("size", "channels", "expected"), [((8, 8), 1, (96, 96)), ((300, 150), 3, (48, 96)), ((1, 1), 3, (96, 96))]
)
def test_thumbnails(size: tuple[int, int], channels: int, expected: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, channels), dtype=np.uint8)
    uri = encode_picture(pixels)
    with Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))) as image:
        assert image.size == expected
        if size == (8, 8):
            assert np.array_equal(np.asarray(image)[::12, ::12], pixels[..., 0])


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0"), (9_999, "9,999"), (61_706, "61.7 k"), (999_499, "999 k"), (999_500, "1 M"), (2_880_000_000, "2.88 G")],
)
def test_counts_are_short(count: int, words: str) -> None:
    assert format_count(count) == words


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run whose only epoch solved the output layer."""
    folder = tmp_path_factory.mktemp("solved")
    rows = [f"{('sweet plum', 'heavy iron')[number % 2]} {number},{number % 2}" for number in range(60)]
    (folder / "notes.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    settings = {"training": {"linear_probe": "logistic"}}
    return train(folder / "notes.csv", model="linear", epochs=1, settings=settings, out=folder / "run")


@pytest.mark.slow
def test_a_solved_output_layer_is_called_one(solved: RunResult, capsys: pytest.CaptureFixture[str]) -> None:
    page, card = ((solved.out / name).read_text(encoding="utf-8") for name in ("report.html", "README.md"))
    assert "a linear probe: its output layer is fitted by logistic regression on frozen features of" in page
    assert "No steps were taken: a linear probe, logistic regression on frozen features" in page
    assert "A linear probe: the output layer is fitted by logistic regression on frozen features, with seed 0" in card
    assert _describe(solved.report, "model-1").curves == ()
    show_result(solved, json=False)
    shown = capsys.readouterr().out
    assert "linear probe: logistic regression on frozen features" in shown
    for text in (page, card, shown):
        assert "1 epochs" not in text
        assert "epoch 1" not in text
    origin = dataclasses.replace(solved.report.config.provenance, refit=True)
    config = dataclasses.replace(solved.report.config, provenance=origin)
    again = dataclasses.replace(solved.report, config=config)
    assert "and then anew, on training and\nvalidation samples together" in render_card(again)
    assert "The training figures, all validation figures" in render_html([again], "again")


@pytest.mark.slow
def test_a_single_epoch_is_one_epoch(trained: RunResult) -> None:
    origin = dataclasses.replace(trained.report.config.provenance, epochs=1, best_epoch=1)
    config = dataclasses.replace(trained.report.config, provenance=origin)
    report = dataclasses.replace(trained.report, config=config, history=trained.report.history[:1])
    page, card = render_html([report], "one"), render_card(report)
    assert "for 1 epoch. The weights are those of epoch 1." in page
    assert "loss over 1 epoch; " in page
    assert "Trained for 1 epoch with seed 0; the weights are those of epoch 1" in card


@pytest.mark.slow
def test_a_class_without_samples_has_a_dash_and_comes_last(trained: RunResult) -> None:
    first, *others = trained.test.per_class
    empty = dataclasses.replace(first, precision=0.0, recall=0.0, f1=0.0, support=0, average_precision=None)
    test = dataclasses.replace(trained.test, per_class=(empty, *others))
    report = dataclasses.replace(trained.report, test=test)
    assert _describe(report, "model-1").classes[-1] == empty
    row = f'<tr><th scope="row">{first.name}</th>' + 4 * "<td>–</td>"
    assert row in render_html([report], "empty")


@pytest.mark.slow
def test_many_classes_are_a_picture(trained: RunResult) -> None:
    """A table of 1000 by 1000 numbers would be larger than the page may be."""
    count, row = 1000, trained.test.per_class[0]
    rows = tuple(dataclasses.replace(row, name=f"class {number}") for number in range(count))
    confusion = tuple(tuple(9 * (i == j) + (j == i + 1) for j in range(count)) for i in range(count))
    test = dataclasses.replace(trained.test, per_class=rows, confusion=confusion)
    output = ClassificationSpec(tuple(row.name for row in rows))
    config = dataclasses.replace(trained.report.config, output=output)
    curve = trained.report.roc[row.name]
    curves = {row.name: curve for row in rows}
    report = dataclasses.replace(trained.report, test=test, config=config, roc=curves, precision_recall=curves)
    assert _describe(report, "model-1").matrix is not None
    html = render_html([report], "many")
    Page(html)
    assert len(html) < 1_500_000
    assert f"{9 * count:,} of {10 * count - 1:,} are correct" in html


def test_ids_of_pictures_are_their_own() -> None:
    svg = '<svg><g id="axes_1"/><path id="p1"/><use href="#p1"/><g clip-path="url(#p1)"/></svg>'
    scoped = scope_ids(svg)
    assert "axes_1" not in scoped
    (name,) = re.findall(r' id="(.*?)"', scoped)
    assert re.findall(r"#([^\")]+)", scoped) == [name, name]
    assert scope_ids(svg.replace("axes", "other")) != scoped


def test_sizes_are_decimal() -> None:
    assert (format_bytes(999), format_bytes(244_312), format_bytes(2_880_000)) == ("1.0 kB", "244.3 kB", "2.88 MB")


def test_the_card_has_a_model_index(trained: RunResult) -> None:
    card = (trained.out / "README.md").read_text(encoding="utf-8")
    assert card == render_card(trained.report)
    _, front, body = card.split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert (metadata["library_name"], metadata["pipeline_tag"]) == ("falconet", "image-classification")
    result = metadata["model-index"][0]["results"][0]
    assert result["dataset"]["name"] == "digits"
    assert {"type": "accuracy", "value": trained.test.accuracy} in result["metrics"]
    assert "# lenet_relu on digits" in body


def test_a_mistake_whose_file_has_gone_is_left_out(trained: RunResult, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for label in "01":
        (folder / label).mkdir(parents=True)
        for index in range(10):
            Image.new("L", (8, 8), 20 * index).save(folder / label / f"{index}.png")
    split = load_dataset(folder).splits["test"]
    (folder / split.samples.name(0)).unlink()
    logits = np.eye(2, dtype=np.float32)[1 - split.labels]
    assert len(find_mistakes(SplitLogits(split, logits, ()), ["0", "1"])) == len(split) - 1

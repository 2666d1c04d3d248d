"""Models that are of little use, from answers that are written down by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from falconet import RunResult
from falconet.cli.training import show_result
from falconet.report import render_html
from falconet.training.diagnoses import Diagnosis
from falconet.training.usefulness import (
    THRESHOLDS,
    Outcome,
    diagnose_outcome,
    no_better_than,
    warn_useless,
)

DOCS = Path(__file__).parents[2] / "docs" / "training.md"


def make_outcome(confusion: Sequence[Sequence[int]], train: Sequence[int] | None = None, **facts: object) -> Outcome:
    """Rows are classes of validation samples, columns what they are taken for; training has ten times as many."""
    counts = np.array(confusion)
    labels, predicted = (np.repeat(index, counts.ravel()) for index in np.indices(counts.shape).reshape(2, -1))
    sizes = np.array(train) if train is not None else 10 * counts.sum(axis=1)
    classes = ("ok", "dent", "scratch", "hole")[: len(counts)]
    return replace(Outcome(classes, sizes, labels, predicted, epoch=7), **facts)  # type: ignore[arg-type]


def name(outcome: Outcome) -> list[tuple[str, str]]:
    found = diagnose_outcome(outcome)
    assert all(one.evidence.endswith(".") and one.remedy.endswith(".") for one in found)
    return [(one.name, one.subject) for one in found]


def find(outcome: Outcome, name: str) -> Diagnosis:
    (found,) = [one for one in diagnose_outcome(outcome) if one.name == name]
    return found


GOOD = [[95, 5], [6, 94]]


def test_nothing_is_said_of_a_model_that_is_of_use() -> None:
    assert name(make_outcome(GOOD)) == []
    assert warn_useless(diagnose_outcome(make_outcome(GOOD))) is None


@pytest.mark.parametrize(("samples", "found"), [(5, True), (4, False)])
def test_a_class_that_is_never_found_needs_five_samples(samples: int, found: bool) -> None:
    outcome = make_outcome([[90, 10, 0], [10, 90, 0], [samples, 0, 0]])
    assert (("class_without_recall", "scratch") in name(outcome)) == found


def test_a_class_that_is_never_found_says_whether_it_is_ever_answered() -> None:
    never = find(make_outcome([[90, 10, 0], [10, 90, 0], [9, 0, 0]]), "class_without_recall")
    wrong = find(make_outcome([[90, 10, 3], [10, 90, 0], [9, 0, 0]]), "class_without_recall")
    assert never.evidence == ("Not one validation sample was found of scratch (9); it is never answered.")
    assert "never answered" not in wrong.evidence
    assert "training.class_weights=balanced" in never.remedy
    both = find(make_outcome([[90, 10, 0, 0], [10, 90, 0, 0], [9, 0, 0, 0], [8, 0, 0, 0]]), "class_without_recall")
    assert (both.subject, both.epoch) == ("", 7)
    assert "scratch (9), hole (8)" in both.evidence


def test_defects_of_which_less_than_half_are_found() -> None:
    found = find(make_outcome([[392, 8], [15, 13]]), "low_recall")
    interval = scipy.stats.binomtest(13, 28).proportion_ci(method="wilson")
    assert found.subject == "dent"
    assert found.evidence == (
        f"Of 28 validation samples of dent, 46.4% are found (95 %: {interval.low:.1%} to {interval.high:.1%}), of all "
        "other classes 98.0%."
    )


@pytest.mark.parametrize(
    ("confusion", "found"),
    [
        ([[98, 2], [25, 75]], True),
        # Significant, but less than a fifth apart.
        ([[980, 20], [150, 850]], False),
        # A fifth apart, but of four samples.
        ([[98, 2], [1, 3]], False),
    ],
)
def test_low_recall_needs_distance_and_samples(confusion: list[list[int]], found: bool) -> None:
    assert (("low_recall", "dent") in name(make_outcome(confusion))) == found


def test_most_of_many_equal_classes_are_not_called_low_by_luck() -> None:
    generator = np.random.default_rng(0)
    false = 0
    for _ in range(300):
        hits = generator.binomial(20, 0.7, size=4)
        confusion = np.diag(hits) + np.roll(np.diag(20 - hits), 1, axis=1)
        false += ("low_recall" in {one for one, _ in name(make_outcome(confusion.tolist()))})  # fmt: skip
    assert false / 300 < 0.05


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (4, 0), (5, 0), (12, 5), (13, 5), (70, 40), (3, 9)])
def test_a_baseline_is_beaten_as_scipy_says(wins: int, losses: int) -> None:
    right = np.repeat([True, False, True, False], [wins, losses, 20, 10])
    baseline = np.repeat([False, True, True, False], [wins, losses, 20, 10])
    chance = scipy.stats.binomtest(wins, wins + losses, alternative="greater").pvalue if wins + losses else 1.0
    found = no_better_than("linear", baseline, right)
    assert (found is not None) == (chance >= 0.05)
    if found:
        assert found.name == "no_better_than_linear"
        assert f"p = {chance:.2g}, one-sided" in found.evidence
        assert "a linear model of the same inputs" in found.evidence


def test_without_samples_nothing_is_said_of_a_baseline() -> None:
    assert no_better_than("majority", np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)) is None


def test_a_model_that_answers_the_majority_alone_is_of_no_use() -> None:
    outcome = make_outcome([[280, 0], [20, 0]])
    assert name(outcome) == [
        ("no_better_than_majority", "ok"),
        ("class_without_recall", "dent"),
        ("imbalanced", "dent"),
    ]
    sentence = warn_useless(diagnose_outcome(outcome))
    assert sentence is not None
    assert "not better than always answering ok, by more than chance" in sentence


def test_the_majority_is_that_of_training() -> None:
    outcome = make_outcome([[5, 55], [5, 35]], train=[900, 300])
    found = find(outcome, "no_better_than_majority")
    assert found.subject == "ok"
    assert "40.0% right, and always answering ok, the most frequent class in training, 60.0%" in found.evidence


def test_few_samples_are_called_few_rather_than_a_model_useless() -> None:
    few = find(make_outcome([[5, 0], [2, 3]]), "no_better_than_majority")
    many = find(make_outcome([[300, 100], [100, 0]]), "no_better_than_majority")
    assert few.remedy.startswith("More validation samples (data.val_fraction)")
    assert many.remedy.startswith("Do not use it yet")


def test_imbalance_names_the_flag_unless_it_was_set() -> None:
    outcome = make_outcome(GOOD, train=[1400, 100])
    found = find(outcome, "imbalanced")
    assert found.evidence == (
        "ok has 1,400 training samples and dent 100, 14 : 1; 94 of 100 validation samples of dent are found."
    )
    assert "training.class_weights=balanced" in found.remedy
    assert name(replace(outcome, balanced=True)) == []
    assert name(make_outcome(GOOD, train=[999, 100])) == []


@pytest.mark.parametrize(("side", "found"), [(640, True), (192, True), (191, False), (None, False)])
def test_photographs_that_become_thumbnails(side: int | None, found: bool) -> None:
    outcome = make_outcome(GOOD, image_side=side, input_side=48)
    assert name(outcome) == ([("shrunk_images", "")] if found else [])
    if side == 640:
        only = find(outcome, "shrunk_images")
        assert "640 pixels" in only.evidence
        assert "1 of 178 pixels" in only.evidence
        assert "Set model.input_size=96" in only.remedy
        assert "model.pretrained" in only.remedy
        assert only.title == "shrunk images"


def test_a_title_says_what_where_and_since_when() -> None:
    assert Diagnosis("low_recall", "dent", 7, "", "").title == "low recall at dent, epoch 7"


def test_each_threshold_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for name, threshold in THRESHOLDS.items():
        assert f"| `{name}` | {threshold.value:g} {threshold.meaning} |" in text


def find_fault(result: RunResult) -> RunResult:
    """Return a run whose model is no better than a guess."""
    found = no_better_than("majority", np.ones(9, dtype=bool), np.zeros(9, dtype=bool), subject="3<b>")
    assert found is not None
    log = replace(result.report.log, diagnoses=(found,))
    return replace(result, report=replace(result.report, log=log))


def test_the_last_line_of_a_run_says_that_its_model_is_of_no_use(
    trained: RunResult, capsys: pytest.CaptureFixture[str]
) -> None:
    show_result(find_fault(trained), json=False)
    *_, before, last = capsys.readouterr().out.splitlines()
    assert "report.html" in before
    assert last == (
        "caution: on the validation samples this model is not better than always answering 3<b>, by more than chance: "
        "do not rely on it"
    )
    show_result(trained, json=False)
    assert "do not rely on it" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_page_that_names_a_fault_does_not_say_that_nothing_was_found(trained: RunResult) -> None:
    fine = replace(trained.report, log=replace(trained.report.log, diagnoses=(), baselines=()))
    assert "Diagnosis: nothing found" in render_html([fine], "title")
    # The linear model is better on the test split, which is no diagnosis, but is said first.
    beaten = replace(fine, log=replace(fine.log, baselines=trained.report.log.baselines))
    assert beaten.verdict
    assert "Diagnosis: nothing found" not in render_html([beaten], "title")
    faulty = render_html([find_fault(trained).report], "title")
    assert "Diagnosis: nothing found" not in faulty
    assert "no better than majority at <code>3&lt;b&gt;</code></strong>, epoch 1: Of 9 validation samples" in faulty


@settings(deadline=None, max_examples=50)
@given(
    answers=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=40),
    train=st.lists(st.integers(0, 1000), min_size=4, max_size=4),
)
def test_whatever_was_answered_is_evaluated(answers: list[tuple[int, int]], train: list[int]) -> None:
    labels, predicted = np.array(answers, dtype=np.int64).reshape(-1, 2).T
    outcome = Outcome(("a", "b", "c", "d"), np.array(train), labels, predicted, epoch=1)
    assert all(one.evidence for one in diagnose_outcome(outcome))


def test_too_few_samples_say_nothing() -> None:
    baseline = np.array([True] * 3 + [False] * 4)
    faultless = np.ones(7, bool)
    # The exact test gives a faultless model p = 1 / 2^4 at best.
    assert no_better_than("majority", baseline, faultless) is None
    assert no_better_than("majority", baseline, ~faultless) is not None
    assert no_better_than("majority", np.zeros(0, bool), np.zeros(0, bool)) is None

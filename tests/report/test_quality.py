"""Pictures of how good a model is, against numbers worked by hand and curves of scikit-learn."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from falconet.metrics import wilson_interval
from falconet.report import quality
from falconet.report.pictures import Picture

LOWER, UPPER = np.array([0.0, 0.25, 0.5, 0.75]), np.array([0.25, 0.5, 0.75, 1.0])
CONFIDENCE, ACCURACY = np.array([0.0, 0.4, 0.6, 0.9]), np.array([0.0, 0.5, 0.25, 0.9])
COUNT = np.array([0, 2, 4, 10])


def describe(picture: Picture) -> str:
    match = re.search(r'aria-label="(.*?)"', picture.svg)
    assert match
    return match[1]


def ydata(line: Any) -> list[float]:
    return [float(value) for value in line.get_ydata()]


def xdata(line: Any) -> list[float]:
    return [float(value) for value in line.get_xdata()]


def test_the_reliability_diagram_shows_filled_bins_with_their_intervals() -> None:
    shares, counts = quality.draw_reliability(LOWER, UPPER, CONFIDENCE, ACCURACY, COUNT).axes
    marks = shares.containers[0][0]
    assert (xdata(marks), ydata(marks)) == ([0.4, 0.6, 0.9], [0.5, 0.25, 0.9])
    (bars,) = shares.containers[0][2]
    bounds = [(segment[0][1], segment[1][1]) for segment in bars.get_segments()]
    expected = [wilson_interval(1, 2), wilson_interval(1, 4), wilson_interval(9, 10)]
    np.testing.assert_allclose(bounds, expected)
    patches: Any = counts.patches
    assert [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in patches] == [
        (0.25, 0.25, 2),
        (0.5, 0.25, 4),
        (0.75, 0.25, 10),
    ]


def test_the_reliability_diagram_says_its_widest_gap() -> None:
    words = describe(quality.show_reliability(LOWER, UPPER, CONFIDENCE, ACCURACY, COUNT))
    assert "16 samples" in words
    assert "(above 75%): confidence 90.0%, accuracy 90.0%, 10 samples" in words
    assert "Widest gap: confidence 60.0%, accuracy 25.0%, 4 samples" in words


def test_coverage_is_drawn_where_something_is_answered() -> None:
    coverage, accuracy = np.array([1.0, 0.85, 0.4, 0.0]), np.array([0.7, 0.8, 1.0, 1.0])
    (curve,) = quality.draw_coverage(coverage, accuracy).axes[0].lines
    assert (xdata(curve), ydata(curve)) == ([1.0, 0.85, 0.4], [0.7, 0.8, 1.0])
    words = describe(quality.show_coverage(coverage, accuracy))
    assert words == (
        "Coverage and accuracy: 70.00% right when it answers 100%, 80.00% right when it answers 85%, "
        "100.00% right when it answers 40%."
    )


def make_scores(classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = np.arange(300) % classes
    return labels, np.eye(classes)[labels] * np.linspace(0.2, 2, classes) + generator.normal(size=(300, classes))


def measure_steps(line: Any) -> float:
    """Area below a line that is drawn as steps: between two points, at the height of the second."""
    assert line.get_drawstyle() == "steps-pre"
    return float((np.diff(xdata(line)) * ydata(line)[1:]).sum())


@pytest.mark.parametrize("ascending", [False, True])
def test_the_drawn_area_is_the_average_precision(ascending: bool) -> None:
    labels, scores = make_scores()
    curves, areas, shares = {}, {}, {}
    for number, name in enumerate("abc"):
        precision, recall, _ = precision_recall_curve(labels == number, scores[:, number])
        curves[name] = (recall[::-1], precision[::-1]) if ascending else (recall, precision)
        areas[name] = float(average_precision_score(labels == number, scores[:, number]))
        shares[name] = 1 / 3
    axes = quality.draw_precision_recall(curves, areas, shares).axes
    # The smallest area comes first.
    assert [one.get_title(loc="left") for one in axes] == [f"{name}  {areas[name]:.3f}" for name in "abc"]
    for one, name in zip(axes, "abc", strict=True):
        chance, line = one.lines
        assert ydata(chance) == [1 / 3, 1 / 3]
        assert measure_steps(line) == pytest.approx(areas[name], abs=1e-9)
    words = describe(quality.show_precision_recall(curves, areas, shares))
    assert (
        words
        == "Precision–recall curves. Average precision: "
        + ", ".join(f"{name} {areas[name]:.3f}" for name in "abc")
        + "."
    )


@pytest.mark.slow
def test_roc_curves_of_many_classes_are_those_of_the_smallest_areas() -> None:
    labels, scores = make_scores(25)
    names = [f"class <{number}> $" for number in range(25)]
    curves = {name: roc_curve(labels == number, scores[:, number])[:2] for number, name in enumerate(names)}
    areas = {name: float(roc_auc_score(labels == number, scores[:, number])) for number, name in enumerate(names)}
    areas[names[3]] = float("nan")
    figure = quality.draw_roc(curves, areas)
    assert len(figure.axes) == quality.PANELS
    first = min((name for name in names if name != names[3]), key=areas.__getitem__)
    assert (xdata(figure.axes[0].lines[1]), ydata(figure.axes[0].lines[1])) == tuple(map(list, curves[first]))
    picture = quality.show_roc(curves, areas)
    assert picture.caption.endswith("The 20 of 25 classes with the smallest areas.")
    assert "class &lt;3&gt;" not in picture.svg
    assert "nan" not in describe(picture)


def test_the_map_of_confusions_shows_shares_of_rows() -> None:
    confusion = np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    figure = quality.draw_confusion(confusion)
    shown: np.ndarray = np.ma.filled(np.ma.asarray(figure.axes[0].images[0].get_array()), np.nan)
    np.testing.assert_array_equal(shown, [[0.75, 0.25, 0], [0, 1, 0], [np.nan] * 3])
    words = describe(quality.show_confusion(confusion, ["a", 'b"', "c"]))
    assert words.endswith("5 of 6 are correct. Most frequent confusion: 1 of a predicted as b&quot;.")
    assert "no errors" in describe(quality.show_confusion(np.diag([1, 2]), ["a", "b"]))

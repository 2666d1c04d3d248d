"""What objects look like in a notebook: one short line, whatever they hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import falconet
from falconet import (
    Artifact,
    Comparison,
    Dataset,
    Examination,
    Explanations,
    Export,
    FitResult,
    Predictions,
    RunResult,
    SeriesSpec,
)
from falconet.comparison.results import ComparisonRow
from falconet.data import Split, Unreadable
from falconet.data.checks import describe_data
from falconet.evaluation.costs import Costs
from falconet.evaluation.paired import PairedComparison
from falconet.evaluation.robustness import Corrupted, Robustness
from falconet.explanation.explaining import Item
from falconet.explanation.pictures import Shown
from falconet.explanation.reasons import ClassAttribution, ExplainedPrediction, Reasons
from falconet.exporters.parity import Parity
from falconet.latency import Latency
from falconet.predictions import Prediction, Ranked
from falconet.report import CompressionSummary
from falconet.report.facts import Mistake
from falconet.training import EpochRow

LONGEST = 300
"""Most characters of a representation, besides a path."""
HOSTILE = "a\x1b[31m\nb"
"""A name that would move a terminal's cursor, and end a line."""


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    labels = np.arange(1200) % 3
    images = np.random.default_rng(0).integers(0, 255, (1200, 28, 28, 1), dtype=np.uint8)
    sides = [(images[end - 20 : end], labels[end - 20 : end]) for end in (1180, 1200)]
    return Dataset.from_arrays(images[:1160], labels[:1160], val=sides[0], test=sides[1])


def make_items(count: int) -> tuple[Item, ...]:
    tokens = tuple((f"word{number}", 0.5) for number in range(200))
    return tuple(
        Item(f"{index}.txt", "spam", 0.9, "saliency", "0.png", 0.2, 0.8, 0.1, tokens) for index in range(count)
    )


EXPLANATIONS = Explanations("why", "why/explanations.html", make_items(12), (), "saliency")
FIGURES = dict.fromkeys(map(str, range(1000)), 0.001)
PREDICTION = Prediction("a.png", "dark", 0.75, (Ranked("dark", 0.75), Ranked("light", 0.25)), FIGURES)
PREDICTIONS = Predictions((PREDICTION,) * 1000, (Unreadable("b.png", "no image"),) * 2)
ROW = ComparisonRow("lenet_relu", accuracy=0.975, macs=10**6, seeds=3, val_accuracy=0.9812)
ROWS = (ROW, ComparisonRow("linear", failed="diverged"))
EXPORT = Export(
    "m.onnx", "onnx", 178_345, {"m.onnx": 9}, None, "onnxruntime", Parity(360, "val", 0, 0.9972), 0.5, 1.0, 0.4
)  # fmt: skip
HISTORY = tuple(EpochRow(number, 0.1, 1.0, 0.5, 1.0, 0.5 + number / 100, 1.0) for number in range(1, 31))
LATENCY = Latency(1.2345, 2.0, 3.0, 100)
ATTRIBUTION = ClassAttribution("7", 0.5, Shown("image", np.zeros((28, 28, 1))), np.zeros((28, 28)))


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (PREDICTIONS, "Predictions(samples 1,000, skipped 2)"),
        (Predictions((), ()), "Predictions(samples 0)"),
        (PREDICTION, "Prediction(file='a.png', label='dark', probability=0.75)"),
        (EXPLANATIONS, "Explanations(items 12, best method saliency, why/explanations.html)"),
        (
            Examination("why", "why/page.html", (), (), (), dataclasses.replace(EXPLANATIONS, best=None)),
            "Examination(mistakes 0, doubts 0, best method none, why/page.html)",
        ),
        (EXPORT, "Export(onnx, 178.3 kB, agreement 99.7% of 360 samples, m.onnx)"),
        (
            FitResult(HISTORY, 30, "completed"),
            "FitResult(completed, epochs 30, best epoch 30, val accuracy 80.0%)",
        ),
        (FitResult((), 0, "diverged", "in epoch 1"), "FitResult(diverged, epochs 0)"),
        (
            Comparison(Path("runs"), HOSTILE, "0", 360, 10, 3, ROWS, (), ()),
            "Comparison(a\\x1b[31m\\x0ab, models 2, seeds 3, test samples 360, runs)",
        ),
        (ROW, "ComparisonRow(lenet_relu, val accuracy 98.1%, test accuracy 97.5%, seeds 3)"),
        (ROWS[1], "ComparisonRow(linear, failed)"),
        (
            Costs(1, 32, LATENCY, LATENCY, 1.5, (1.5,) * 100, None, None, None),
            "Costs(latency p50 1.23 ms, cold start 1.50 s, threads 1)",
        ),
        (
            Robustness(1200, 0.98, 0.75, (Corrupted("noise", 1, 0.1, 1200, 0.5),) * 80, (), "not asked for"),
            "Robustness(accuracy 98.0% clean, 75.0% corrupted, n = 1,200)",
        ),
        (
            falconet.summarize("lenet5"),
            "Complexity(lenet5, input 1x32x32, 60,000 parameters, 416,520 MACs)",
        ),
        (falconet.ClassificationSpec(tuple(map(str, range(1000)))), "ClassificationSpec(1,000 classes)"),
        (
            Reasons("gradcam", (ExplainedPrediction("a", "7", ATTRIBUTION, ATTRIBUTION),) * 6),
            "Reasons(method='gradcam'",
        ),
    ],
)
def test_results_are_short(value: object, wanted: str) -> None:
    assert repr(value).startswith(wanted)
    assert len(repr(value)) <= LONGEST


def test_a_data_set_and_its_splits_are_counted(dataset: Dataset) -> None:
    assert repr(dataset) == "Dataset(arrays, image, 3 classes, train 1,160, val 20, test 20)"
    assert repr(dataset.train) == "Split(train, 1,160 images, 3 classes)"
    assert repr(dataset.split("all")) == "Split(all, 1,200 images, 3 classes)"
    assert repr(dataset.test[:1]) == "Split(test, 1 image, 3 classes)"
    assert repr(dataset.splits["test"]) == "Split(20 samples)"
    assert repr(dataclasses.replace(dataset, source=HOSTILE)).startswith("Dataset(a\\x1b[31m\\x0ab, image")
    loader = dataset.train.to_loader(falconet.ImageSpec((1, 28, 28), (0.0,), (1.0,)), batch_size=50, shuffle=True)
    assert repr(loader) == "Loader(image, samples 1,160, batches 24, batch size 50, sampler shuffle)"


def test_a_report_on_data_is_counted(dataset: Dataset) -> None:
    report = describe_data(dataset)
    counts = "3 classes, train 1,160, val 20, test 20, unreadable 0"
    assert repr(report) == f"DataReport(arrays, image, {counts})"
    assert repr(dataclasses.replace(report, source=HOSTILE)) == f"DataReport(a\\x1b[31m\\x0ab, image, {counts})"


def test_a_run_and_its_parts_are_short(trained: RunResult) -> None:
    plain = RunResult(**{entry.name: getattr(trained, entry.name) for entry in dataclasses.fields(RunResult)})
    figures = f"accuracy {trained.test.accuracy:.1%}"
    assert repr(plain) == f"RunResult(lenet_relu, test {figures}, epochs 2, {trained.out})"
    assert repr(trained).startswith("Run(")
    assert "lenet_relu" in repr(trained)
    artifact, report = falconet.load_artifact(trained.out), trained.report
    assert repr(artifact) == f"Artifact(lenet_relu, image 1x28x28, 10 classes, {trained.out})"
    assert repr(Artifact(artifact.config, artifact.weights)) == "Artifact(lenet_relu, image 1x28x28, 10 classes)"
    assert repr(artifact.config) == "ArtifactConfig(lenet_relu, image 1x28x28, 10 classes)"
    assert repr(report).startswith(f"ModelReport(lenet_relu, test {figures}, {report.params:,} parameters, ")
    assert repr(report.log).startswith("TrainingLog(layer stats 8, diagnoses ")
    assert repr(trained.test).startswith(f"Evaluation(test {figures} (95%: ")
    assert repr(trained.test).endswith(f", n = {trained.test.n:,}))")
    for value in (trained, plain, artifact, artifact.config, report, report.log, trained.test, *report.mistakes):
        assert len(repr(value).replace(str(trained.out), "")) <= LONGEST
        assert "\n" not in repr(value)


def test_values_of_samples_and_channels_are_left_out() -> None:
    spec = SeriesSpec((100, 24), (0.123456789,) * 100, (1.23456789,) * 100)
    mistake = Mistake("arrays[2]", np.zeros((28, 28, 1), np.uint8), "1", "7", 0.9)
    comparison = PairedComparison("dense", 360, 349, 0, 2, 9, 0.5, 0.97, 0.975, -0.005, None)
    summary = CompressionSummary(
        177_000, 4_321, 10, 10, comparison, {}, {}, integers=None, kept=0.1, bits=4, trials=12, untouched={}
    )
    assert repr(spec).startswith("SeriesSpec(shape=(100, 24), length_mode='pad'")
    assert repr(mistake) == "Mistake(name='arrays[2]', label='1', predicted='7', probability=0.9)"
    assert repr(make_items(1)[0]).startswith("Item(file='0.txt', label='spam', probability=0.9, method='saliency'")
    assert repr(summary) == "CompressionSummary(177.0 kB before, 4,321 bytes after, test accuracy drop 0.50 points)"
    assert all(len(repr(value)) <= LONGEST for value in (spec, make_items(1)[0], ATTRIBUTION))


def test_what_is_not_shown_still_counts() -> None:
    other = dataclasses.replace(PREDICTION, top=())
    assert other != PREDICTION
    assert repr(other) == repr(PREDICTION)
    assert dataclasses.replace(PREDICTION, probabilities=None) != PREDICTION
    assert hash(ROW) == hash(dataclasses.replace(ROW))
    assert dataclasses.replace(ROW, macs=7) != ROW


def test_results_are_sequences_of_their_items() -> None:
    assert len(PREDICTIONS) == 1000
    assert (PREDICTIONS[0], PREDICTIONS[-1]) == (PREDICTION, PREDICTION)
    assert PREDICTIONS[:2] == (PREDICTION, PREDICTION)
    assert list(PREDICTIONS) == list(PREDICTIONS.predictions)
    assert len(EXPLANATIONS) == 12
    assert [item.file for item in EXPLANATIONS][:2] == ["0.txt", "1.txt"]
    assert (EXPLANATIONS[-1], EXPLANATIONS[1:3]) == (EXPLANATIONS.items[11], EXPLANATIONS.items[1:3])
    with pytest.raises(IndexError):
        EXPLANATIONS[12]


def test_parts_of_a_split_are_splits(dataset: Dataset) -> None:
    split = dataset.test
    for index, kept in (
        (slice(5), range(5)),
        (slice(None, None, -4), range(19, -1, -4)),
        (slice(25, 30), range(0)),
        ([3, -1, 3], [3, 19, 3]),
        (np.array([4, 2]), [4, 2]),
        ([], []),
        (split.labels == 1, np.flatnonzero(split.labels == 1)),
    ):
        part = split[index]
        assert isinstance(part, Split)
        assert (part.name, part.owner, len(part)) == ("test", dataset, len(kept))
        assert [(image.tolist(), label) for image, label in part] == [
            (image.tolist(), label) for image, label in (split[int(position)] for position in kept)
        ]
    assert split[-1][1] == split[19][1]
    with pytest.raises(IndexError, match="wanted a position below 20, found 20"):
        split[20]
    with pytest.raises(IndexError, match="20"):
        split[[20]]
    with pytest.raises(TypeError):
        split["train"]  # type: ignore[index]

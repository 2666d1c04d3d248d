"""`falconet evaluate` of an exported file: the figures of the model itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import falconet
from falconet import RunResult, cli
from falconet.artifact import Artifact
from falconet.errors import DataError, ExportError
from falconet.exporters.evaluation import evaluate_exported
from tests.exporters.builders import LABELS
from tests.exporters.conftest import Exporter

pytestmark = pytest.mark.slow


def write_digits(path: Path) -> Path:
    """A source with a test split of its own: 40 digits."""
    dataset = falconet.load_dataset("digits")
    split = dataset.splits["test"].take(np.arange(60))
    images = np.stack([split.samples.read(index) for index in range(60)])
    labels = np.array(dataset.classes)[split.labels]
    parts = {"train": slice(0, 10), "val": slice(10, 20), "test": slice(20, 60)}
    arrays: dict[str, Any] = {}
    for name, rows in parts.items():
        arrays |= {f"x_{name}": images[rows], f"y_{name}": labels[rows]}
    np.savez(path, **arrays)
    return path


def test_figures_are_those_of_the_model(trained: RunResult, exported: Exporter, tmp_path: Path) -> None:
    source = write_digits(tmp_path / "digits.npz")
    own = falconet.evaluate(trained.out, source)
    for runtime, target in (("onnxruntime", "onnx"), ("openvino", "openvino")):
        found = evaluate_exported(runtime, exported("image", target), source)  # type: ignore[arg-type]
        assert (found.split, found.n) == ("test", own.n) == ("test", 40)
        assert found.confusion == own.confusion
        assert found.log_loss == pytest.approx(own.log_loss, abs=1e-4)
        assert found.brier == pytest.approx(own.brier, abs=1e-4)
    assert evaluate_exported("onnxruntime", exported("image", "onnx"), source, split="val").n == 10


def test_a_split_that_training_made_is_refused(trained: RunResult, exported: Exporter) -> None:
    path = exported("image", "onnx")
    for split in (None, "test", "val", "train"):
        with pytest.raises(DataError, match=r"a (test|val|train) split of its own.*split='all'"):
            evaluate_exported("onnxruntime", path, "digits", split=split)
    own = falconet.evaluate(trained.out, "digits", split="all")
    assert evaluate_exported("onnxruntime", path, "digits", split="all").confusion == own.confusion


def test_texts_of_another_source(
    text_artifact: Artifact, exported: Exporter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text_artifact.save(tmp_path / "model")
    rows = [f'{{"text": "plum {number} and pear", "label": {json.dumps(LABELS[number % 3])}}}' for number in range(9)]
    source = tmp_path / "notes.jsonl"
    source.write_text("\n".join(rows), encoding="utf-8")
    assert cli.run(["evaluate", str(exported("text", "onnx")), str(source), "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert "has no test split: all of it is evaluated" in printed.err
    own = falconet.evaluate(tmp_path / "model", source, split="all")
    assert found["n"] == own.n == 9
    assert found["log_loss"] == pytest.approx(own.log_loss, abs=1e-4)
    assert cli.run(["evaluate", str(exported("text", "onnx")), str(source), "--corruptions"]) == 2
    assert "--corruptions: wanted a model's folder, found an exported file" in capsys.readouterr().err


def test_what_cannot_be_evaluated(exported: Exporter, tmp_path: Path) -> None:
    source = write_digits(tmp_path / "digits.npz")
    with pytest.raises(ExportError, match="bare network"):
        evaluate_exported("onnxruntime", exported("image", "onnx", preprocessing=False), source)
    with pytest.raises(DataError, match="wanted text data, as the file takes, found image"):
        evaluate_exported("onnxruntime", exported("text", "onnx"), source)
    strange = tmp_path / "strange.npz"
    np.savez(strange, images=np.zeros((4, 8, 8), np.uint8), labels=np.array(["owl"] * 4))
    with pytest.raises(DataError, match="does not know the classes owl"):
        evaluate_exported("onnxruntime", exported("image", "onnx"), strange)

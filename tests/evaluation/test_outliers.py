"""A model's own samples against those of another source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
from PIL import Image

from falconet import RunResult, evaluate, load_artifact, load_dataset
from falconet.errors import DataError, PathError, UnknownNameError
from falconet.evaluation import predict_logits
from falconet.evaluation.outliers import drop_shared
from falconet.metrics import softmax

FolderMaker = Callable[..., Path]


def test_scores_of_other_things(trained: RunResult, make_folder: FolderMaker) -> None:
    """Whatever their classes."""
    folder = make_folder(classes=("cat", "dog"), mode="L")
    artifact = load_artifact(trained.out)
    found = evaluate(artifact, "digits", ood=folder).ood
    assert found is not None
    assert (found.source, found.split, found.n, found.unreadable) == (str(folder), "all", 24, 0)
    own, others = (
        predict_logits(artifact, samples)[0]
        for samples in (load_dataset("digits").splits["test"].samples, load_dataset(folder).split("all").samples)
    )
    labels = np.arange(len(own) + len(others)) < len(own)
    expected = sklearn.metrics.roc_auc_score(labels, softmax(np.concatenate([own, others])).max(axis=1))
    assert found.max_probability.auroc == pytest.approx(expected)
    raw = np.concatenate([own, others]).astype(np.float64) * artifact.config.calibration_temperature
    expected = sklearn.metrics.roc_auc_score(labels, np.log(np.exp(raw).sum(axis=1)))
    assert found.energy.auroc == pytest.approx(expected, abs=1e-4)


def test_one_class_is_enough_and_a_test_split_is_taken(trained: RunResult, make_folder: FolderMaker) -> None:
    folder = make_folder(classes=("things",), splits=("train", "test"), count=5)
    found = evaluate(trained.out, "digits", ood=folder).ood
    assert found is not None
    assert (found.split, found.n) == ("test", 5)


def test_unreadable_samples_are_counted(trained: RunResult, make_folder: FolderMaker) -> None:
    folder = make_folder(classes=("things",), count=5)
    damaged = folder / "things" / "000.png"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    found = evaluate(trained.out, "digits", ood=folder).ood
    assert found is not None
    assert (found.n, found.unreadable) == (4, 1)


def test_the_same_samples_are_refused(trained: RunResult, make_folder: FolderMaker, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ood: wanted another source than digits, found the same samples in digits"):
        evaluate(trained.out, "digits", ood="digits")
    folder = make_folder(classes=("3", "7"))
    part = tmp_path / "part" / "any"
    part.mkdir(parents=True)
    image = Image.open(folder / "3" / "000.png")
    image.save(part / "one.png")
    (part / "one.png").write_bytes((folder / "3" / "000.png").read_bytes())
    with pytest.raises(DataError, match=r"found none that can be used in .*: all stand in the evaluated split too"):
        evaluate(trained.out, folder, split="all", ood=part.parent)


def test_shared_samples_are_left_out() -> None:
    split = load_dataset("digits").splits["val"]
    assert len(drop_shared(split, split.take(np.arange(10)))) <= len(split) - 10


def test_mistakes_are_named(trained: RunResult, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown source 'mnits'"):
        evaluate(trained.out, "digits", ood="mnits")
    with pytest.raises(PathError, match="no such file or folder"):
        evaluate(trained.out, "digits", ood="no/such/folder")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="wanted one subfolder of"):
        evaluate(trained.out, "digits", ood=tmp_path / "empty")
    table = tmp_path / "texts.csv"
    table.write_text("text,label\n" + "".join(f"number {n},{n % 2}\n" for n in range(20)), encoding="utf-8")
    with pytest.raises(DataError, match=r"wanted image data|wanted paths of images"):
        evaluate(trained.out, "digits", ood=table)

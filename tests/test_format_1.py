"""Models that the first edition wrote are read for good: folders and coded files of format 1, and how they answered."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from falconet import load_artifact
from falconet.artifact import _FORMAT_VERSION, Artifact
from falconet.data import Samples
from falconet.data.dataset import ImageArray, SeriesArray, Texts
from falconet.evaluation.logits import predict_logits
from falconet.spec import ImageSpec, SeriesSpec

GOLDEN = Path(__file__).parent / "assets" / "format-1"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
KINDS = ("image", "series", "text")


def make_samples(kind: str) -> Samples:
    """Return the samples that the models answered about when they were written."""
    generator, names = np.random.default_rng(0), np.array(["0", "1"])
    images = generator.integers(0, 256, (2, 11, 9, 3), dtype=np.uint8)
    series = generator.normal(size=(2, 2, 20)).astype(np.float32)
    if kind == "image":
        return ImageArray(images, names)
    if kind == "series":
        return SeriesArray(np.concatenate(list(series), axis=1), np.array([[0, 20], [20, 40]]), names)
    return Texts(["plum and pear", "iron, zinc, lead"], names)


def check(artifact: Artifact, kind: str) -> None:
    assert list(artifact.config.output.labels) == EXPECTED[kind]["labels"]
    assert artifact.config.format_version == _FORMAT_VERSION
    answers, _ = predict_logits(artifact, make_samples(kind))
    np.testing.assert_allclose(answers, EXPECTED[kind]["logits"], atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_format_1_answers_as_it_did(kind: str, tmp_path: Path) -> None:
    artifact = load_artifact(GOLDEN / kind)
    check(artifact, kind)
    artifact.save(tmp_path)
    assert load_artifact(tmp_path).config == artifact.config
    assert json.loads((tmp_path / "config.json").read_text())["format_version"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_coded_file_of_format_1_answers_as_it_did(kind: str) -> None:
    check(load_artifact(GOLDEN / f"{kind}.fnet"), kind)


def test_fields_with_other_names_are_found() -> None:
    image, series = (load_artifact(GOLDEN / kind).config.input for kind in ("image", "series"))
    assert isinstance(image, ImageSpec)
    assert isinstance(series, SeriesSpec)
    assert (image.padding, series.length_mode) == (1, "resample")

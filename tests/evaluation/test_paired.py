"""Two models on the same samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from falconet import RunResult, evaluate, load_artifact, load_dataset
from falconet.artifact import Artifact
from falconet.errors import DataError, PathError
from falconet.evaluation import predict_logits
from falconet.metrics import mcnemar_p_value
from falconet.spec import ClassificationSpec

FolderMaker = Callable[..., Path]


def disturb(artifact: Artifact, noise: float) -> Artifact:
    """Return a model with other weights, and its classes in another order."""
    import torch

    generator = torch.Generator().manual_seed(0)
    weights = {
        name: tensor + noise * tensor.std() * torch.randn(tensor.shape, generator=generator)
        for name, tensor in artifact.weights.items()
    }
    *_, (last, bias) = zip(list(weights)[::2], list(weights)[1::2], strict=True)
    weights = {**weights, last: weights[last].flip(0), bias: weights[bias].flip(0)}
    output = ClassificationSpec(artifact.config.output.labels[::-1])
    return Artifact(dataclasses.replace(artifact.config, output=output), weights)


def test_classes_are_matched_by_name_and_pairs_are_counted(trained: RunResult) -> None:
    artifact, split = load_artifact(trained.out), load_dataset("digits").splits["test"]
    other = disturb(artifact, 0.5)
    right = predict_logits(artifact, split.samples)[0].argmax(axis=1) == split.labels
    rights = 9 - predict_logits(other, split.samples)[0].argmax(axis=1) == split.labels
    found = evaluate(artifact, "digits", against=other).against
    assert found is not None
    assert found.n == len(split)
    assert (found.both, found.neither) == ((right & rights).sum(), (~right & ~rights).sum())
    assert (found.only_this, found.only_other) == ((right & ~rights).sum(), (~right & rights).sum())
    assert found.p_value == mcnemar_p_value(found.only_this, found.only_other)
    assert found.difference == pytest.approx(found.accuracy - found.other_accuracy)
    assert found.other_accuracy == pytest.approx(evaluate(other, "digits").accuracy)
    assert found.difference_ci is not None
    assert found.difference_ci[0] < found.difference < found.difference_ci[1]
    back = evaluate(other, "digits", against=artifact).against
    assert back is not None
    assert (back.only_this, back.only_other, back.p_value) == (found.only_other, found.only_this, found.p_value)


def test_a_model_against_itself(trained: RunResult) -> None:
    found = evaluate(trained.out, "digits", against=trained.out).against
    assert found is not None
    assert (found.only_this, found.only_other, found.p_value, found.difference_ci) == (0, 0, 1.0, None)


def test_a_model_that_lacks_classes_or_saw_other_data_is_refused(trained: RunResult) -> None:
    artifact = load_artifact(trained.out)
    few = ClassificationSpec(tuple("abcdefghij"))
    other = dataclasses.replace(artifact, config=dataclasses.replace(artifact.config, output=few))
    with pytest.raises(DataError, match="the model does not know the classes 0, 1"):
        evaluate(artifact, "digits", against=other)
    origin = dataclasses.replace(artifact.config.provenance.data, fingerprint="0" * 32)
    provenance = dataclasses.replace(artifact.config.provenance, data=origin)
    stranger = dataclasses.replace(artifact, config=dataclasses.replace(artifact.config, provenance=provenance))
    with pytest.raises(DataError, match="is not the data that the model was trained on"):
        evaluate(artifact, "digits", against=stranger)
    with pytest.raises(PathError, match="no such folder"):
        evaluate(artifact, "digits", against="no/such/folder")


def test_samples_that_only_one_can_read_do_not_count(trained: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = load_artifact(trained.out)
    calls: list[int] = []

    def predict(model: Artifact, samples: object) -> tuple[np.ndarray, dict[int, str]]:
        calls.append(1)
        logits, _ = predict_logits(model, samples)  # type: ignore[arg-type]
        return logits[3:], dict.fromkeys(range(3), "damaged")

    monkeypatch.setattr("falconet.evaluation.paired.predict_logits", predict)
    found = evaluate(artifact, "digits", against=artifact).against
    assert found is not None
    assert calls
    assert found.n == trained.test.n - 3
    assert (found.only_this, found.only_other) == (0, 0)

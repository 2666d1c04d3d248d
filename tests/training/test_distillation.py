"""Learning from a teacher: the distances by hand, inputs converted, and that it helps where it should."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from falconet import ImagePreprocess, ImageSpec, TrainConfig, fit, load_artifact, load_dataset, train
from falconet.data.loader import Loader, load_inputs
from falconet.data.preprocessing import create_preprocess
from falconet.errors import ConfigError, PathError
from falconet.models import create_model
from falconet.planning import plan_run
from falconet.spec import SeriesSpec
from falconet.training.devices import DevicePolicy
from falconet.training.distillation import DistillationLoss, Teacher, feature_distillation_loss, logit_distillation_loss

POLICY = DevicePolicy(torch.device("cpu"), torch.float32)
LOGITS, WANTED = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0], [3.0, 0.0, 0.0]])


def test_distance_of_logits_by_hand() -> None:
    temperature = 4.0
    expected = 0.0
    for found, wanted in zip(LOGITS.double().numpy(), WANTED.double().numpy(), strict=True):
        p, q = (np.exp(values / temperature) / np.exp(values / temperature).sum() for values in (wanted, found))
        expected += 16 * (p * np.log(p / q)).sum() / 2
    assert logit_distillation_loss(LOGITS, WANTED, temperature).item() == pytest.approx(expected, rel=1e-5)
    assert logit_distillation_loss(WANTED, WANTED, temperature).item() == pytest.approx(0, abs=1e-7)


def test_distance_of_features_by_hand() -> None:
    mine, theirs = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    rows = np.array([[1, 1], [1, 2]]) / np.sqrt([[2], [5]])
    expected = ((rows - np.eye(2)) ** 2).sum() / 2
    assert feature_distillation_loss(mine, theirs).item() == pytest.approx(expected, rel=1e-5)
    assert feature_distillation_loss(mine, 7 * mine.flip(1)).item() == pytest.approx(0, abs=1e-7)


def test_features_are_what_the_output_layer_sees() -> None:
    model, x = create_model("lenet_relu", num_classes=3).eval(), torch.randn(2, 1, 28, 28)
    logits, features = DistillationLoss(model, TrainConfig(), POLICY).watch(model, x)
    output = list(model.children())[-1]
    torch.testing.assert_close(output(features), logits)
    assert not model._forward_pre_hooks
    assert not any(module._forward_pre_hooks for module in model.modules())


SMALL = ImageSpec((1, 12, 12), (0.3,), (0.2,), padding=2)
LARGE = ImageSpec((3, 20, 20), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))


def test_a_teacher_sees_what_it_would_see_of_the_raw_image() -> None:
    """But for what scaling twice rounds away: here the image has the student's size already."""
    images = torch.randint(0, 256, (2, 8, 8, 1), dtype=torch.uint8)
    student, own = ImagePreprocess(SMALL), ImagePreprocess(LARGE)
    teacher = Teacher(nn.Flatten(), own, student)
    torch.testing.assert_close(teacher(student(images)), own(images).flatten(1), rtol=1e-4, atol=1e-4)


def test_an_equal_input_is_passed_on_as_it_is() -> None:
    x = torch.randn(2, 1, 12, 12)
    assert torch.equal(Teacher(nn.Flatten(), ImagePreprocess(SMALL), ImagePreprocess(SMALL))(x), x.flatten(1))


def test_teachers_that_cannot_teach() -> None:
    series = SeriesSpec((1, 20), (0.0,), (1.0,))
    longer = dataclasses.replace(series, shape=(1, 30))
    with pytest.raises(ConfigError, match="wanted one with the same input"):
        Teacher(nn.Identity(), create_preprocess(longer), create_preprocess(series))


def test_a_lesson_changes_nothing_in_the_teacher() -> None:
    teacher, model = (create_model("lenet_relu", num_classes=3) for _ in range(2))
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    x = torch.randn(4, 1, 28, 28)
    logits, distance = DistillationLoss(teacher.eval(), TrainConfig(feature_weight=1.0), POLICY)(model, x)
    distance.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(logits, model(x))
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in before.items())


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    return train("digits", model="lenet_relu", epochs=12, out=folder).out


@pytest.mark.slow
def test_a_student_of_another_size_learns_from_a_trained_model(teacher_folder: Path, tmp_path: Path) -> None:
    settings = {
        "model": {"name": "lenet300_100", "teacher": str(teacher_folder), "input_size": 28},
        "training": {"feature_weight": 1.0},
    }
    run = train("digits", epochs=4, settings=settings, out=tmp_path / "run")
    assert run.test.accuracy > 0.85
    assert load_artifact(run.out).config.architecture == "lenet300_100"


def test_a_teacher_must_be_a_trained_model(tmp_path: Path) -> None:
    with pytest.raises(PathError, match="wanted a trained model"):
        plan_run("digits", settings={"model": {"teacher": str(tmp_path)}})


def learn(teacher: nn.Module | None, spec: ImageSpec, seed: int, weight: float = 0.0) -> float:
    """Return the test accuracy of a small network that sees 60 labels."""
    dataset = load_dataset("digits")
    preprocess = create_preprocess(spec)
    inputs = {name: load_inputs(dataset.splits[name], spec) for name in ("train", "val", "test")}
    labels = {name: torch.from_numpy(part.split.labels) for name, part in inputs.items()}
    few = torch.randperm(len(labels["train"]), generator=torch.Generator().manual_seed(seed))[:60]
    pixels: Any = inputs["train"].inputs
    training = Loader(pixels[few], labels["train"][few], preprocess, 20, sampler="shuffle", seed=seed)
    val: Any = inputs["val"].inputs
    torch.manual_seed(seed)
    model = create_model("lenet300_100", num_classes=10)
    config = TrainConfig(epochs=40, batch_size=20, seed=seed, restore="last", feature_weight=weight)
    fit(model, training, Loader(val, labels["val"], preprocess, 256), config, teacher=teacher)
    test: Any = inputs["test"].inputs
    with torch.inference_mode():
        answers = model(preprocess.normalize(test.float() / 255)).argmax(dim=1)
    return float((answers == labels["test"]).float().mean())


@pytest.mark.slow
def test_a_teacher_helps_where_labels_are_few(teacher_folder: Path) -> None:
    artifact = load_artifact(teacher_folder)
    assert isinstance(artifact.config.input, ImageSpec)
    alone = [learn(None, artifact.config.input, seed) for seed in range(3)]
    for weight in (0.0, 3.0):
        taught = [learn(artifact.model, artifact.config.input, seed, weight) for seed in range(3)]
        assert sum(taught) / 3 > sum(alone) / 3 + 0.01, weight

"""Which networks are tried on which data."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from falconet.data import Dataset
from falconet.data.dataset import ImageArray, Split
from falconet.defaults import CANDIDATES, DataFacts, choose_candidates, choose_size, default_settings
from falconet.models import MODELS
from falconet.spec import ModalityName

IMAGES = DataFacts("image", count=5_000, side=28, gray=True, recorded=False)
SERIES = DataFacts("series", count=100, side=0, gray=False, recorded=False)
TEXTS = DataFacts("text", count=1_000, side=0, gray=False, recorded=False)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (IMAGES, ["linear", "lenet_relu"]),
        (replace(IMAGES, side=300), ["efficientnet_lite0"]),
        (replace(IMAGES, side=300, gray=False), ["efficientnet_lite0"]),
        (replace(IMAGES, side=32, gray=False), ["linear", "resnet20"]),
        (replace(IMAGES, side=64), ["linear", "resnet20"]),
        (replace(IMAGES, side=32, gray=False, count=500), ["linear", "efficientnet_lite0"]),
        (SERIES, ["minirocket"]),
        (replace(SERIES, count=5_000), ["minirocket", "resnet1d18"]),
        (replace(SERIES, recorded=True), ["minirocket", "transformer"]),
        (replace(SERIES, recorded=True, count=5_000), ["minirocket", "resnet1d18"]),
    ],
)
def test_candidates_follow_from_the_data(data: DataFacts, expected: list[str]) -> None:
    assert [candidate.model for candidate in choose_candidates(data)] == expected


def test_texts_get_published_vectors_where_they_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert [candidate.model for candidate in choose_candidates(TEXTS)] == ["linear", "ngrams"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert [candidate.model for candidate in choose_candidates(TEXTS)] == ["linear", "minilm", "ngrams"]


def test_any_data_have_a_candidate() -> None:
    images: tuple[ModalityName, tuple[int, ...]] = ("image", (1, 40, 41, 64, 65, 5_000))
    every: tuple[tuple[ModalityName, tuple[int, ...]], ...] = (images, ("series", (0,)), ("text", (0,)))
    for kind, sides in every:
        for side in sides:
            for gray in (False, True):
                for count in (1, 2_000, 2_001, 3_001, 10**6):
                    data = DataFacts(kind, count, side, gray, recorded=False)
                    assert choose_candidates(data)


def test_candidates_are_of_the_table_and_eat_what_they_are_tried_on() -> None:
    for kind, candidates in CANDIDATES.items():
        for candidate in candidates:
            assert kind in MODELS[candidate.model].kinds


def make_dataset(counts: tuple[int, ...]) -> Dataset:
    """Images of as many samples a class in the training split as `counts` says."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.zeros((len(labels), 8, 8, 1), np.uint8)
    split = Split(
        ImageArray(images, np.arange(len(labels)).astype(str)), labels, np.arange(len(labels), dtype=np.uint64)
    )
    names = tuple(map(str, range(len(counts))))
    return Dataset("made", names, dict.fromkeys(("train", "val", "test"), split), channels=1, size=(8, 8))


@pytest.mark.parametrize(
    ("counts", "weights"), [((10, 10), None), ((29, 10), None), ((30, 10), "balanced"), ((5, 0), None)]
)
def test_uneven_classes_are_weighed(counts: tuple[int, ...], weights: str | None) -> None:
    assert default_settings(make_dataset(counts))["training"].get("class_weights") == weights


@pytest.mark.parametrize(("side", "size"), [(8, 96), (97, 128), (128, 128), (200, 224), (3_000, 224)])
def test_backbones_take_images_near_their_own_size(side: int, size: int) -> None:
    assert choose_size(side) == size


def test_a_candidates_settings_stand_above_the_usual_ones() -> None:
    candidate = choose_candidates(replace(IMAGES, side=300))[0]
    settings = default_settings(make_dataset((50, 50)), candidate)
    assert settings["model"] == {"name": "efficientnet_lite0", "pretrained": "embedded", "input_size": 96}
    assert settings["training"]["linear_probe"] == "logistic"
    assert settings["training"]["batch_size"] == 16
    assert default_settings(make_dataset((50, 50)))["training"] == {"epochs": 40, "batch_size": 8}

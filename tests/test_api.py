"""The API as its page shows it, and each part of it on small data."""

from __future__ import annotations

import gc
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import falconet
from falconet import Dataset, Model, Run, TrainConfig
from falconet.artifact import encode_artifact, open_artifact
from falconet.errors import (
    ArtifactError,
    BudgetError,
    ConfigError,
    DataError,
    FalconetError,
    RunExistsError,
    UsageError,
)
from falconet.model import train
from tests.conftest import FolderMaker

ROOT = Path(__file__).parent.parent
CLASSES = ("dark", "gray", "light")


def make_arrays(count: int = 90, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images that any network can tell apart, and the names of their classes."""
    numbers = np.arange(count) % 3
    pixels = np.random.default_rng(seed).normal(60 + 60 * numbers[:, None, None], 20, (count, 12, 12))
    return pixels.clip(0, 255).astype(np.uint8), np.array(CLASSES)[numbers]


@pytest.fixture(scope="module")
def run() -> Run:
    dataset = Dataset.from_arrays(*make_arrays())
    return train(dataset, model="lenet_relu", epochs=2, batch_size=16, progress=False)


@pytest.fixture
def dataset(run: Run) -> Dataset:
    return run.dataset


# The page


@pytest.mark.slow
def test_the_page_runs(make_folder: FolderMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder("photos", ("dark", "gray", "light"), count=20)
    monkeypatch.chdir(tmp_path)
    x, y = make_arrays(60)
    pictures = [Image.fromarray(image) for image in x[:3]]
    pictures[0].save("a.jpg")
    loader = DataLoader(TensorDataset(torch.randn(24, 3, 32, 32), torch.arange(24) % 10), batch_size=8, shuffle=True)
    known: dict[str, Any] = {
        "x": x,
        "y": y,
        "df": {"review": [f"review {n} is {'good' * (n % 2)}" for n in range(40)], "mood": ["bad", "good"] * 20},
        "pil_image": pictures[1],
        "array": x[2],
        "images": pictures,
        "train_loader": loader,
        "val_loader": loader,
    }
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 6
    for block in blocks:
        exec(block, known)
    assert isinstance(known["small"], Model)
    assert len(known["small"].artifact.serialize()) <= 80_000
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "a.jpg", "small", "small.onnx"}
    assert isinstance(known["module"], nn.Module)


# Data sets


def test_arrays_pictures_and_lists_are_one_data_set() -> None:
    x, y = make_arrays()
    ways = (x, x[..., None], torch.from_numpy(x), list(x), [Image.fromarray(image) for image in x])
    made = [Dataset.from_arrays(way, y) for way in ways]
    assert len({dataset.fingerprint for dataset in made}) == 1
    assert len({dataset.splits_fingerprint for dataset in made}) == 1
    first = made[0]
    assert (first.classes, first.size, first.channels) == (CLASSES, (12, 12), 1)
    assert first.made_splits == {"val", "test"}
    assert sum(map(len, (first.train, first.val, first.test))) == 90


def test_a_split_is_a_sequence_of_samples_and_labels() -> None:
    x, y = make_arrays()
    train_split = Dataset.from_arrays(x, y).train
    image, label = train_split[0]
    assert (image.shape, image.dtype, type(label)) == ((12, 12, 1), np.uint8, int)
    assert train_split.classes[label] in CLASSES
    assert np.array_equal(train_split[-1][0], train_split[len(train_split) - 1][0])
    assert [label for _, label in train_split] == train_split.labels.tolist()
    with pytest.raises(IndexError, match="wanted a position below"):
        train_split[len(train_split)]
    # As a data set of torch.
    _, numbers = next(iter(DataLoader(train_split, batch_size=4)))  # type: ignore[arg-type]
    assert numbers.tolist() == train_split.labels[:4].tolist()


def test_pictures_of_several_sizes() -> None:
    x, y = make_arrays(30)
    pictures = [Image.fromarray(image[: 8 + index % 3]) for index, image in enumerate(x)]
    dataset = Dataset.from_arrays(pictures, y, test=(pictures[:3], y[:3]))
    assert dataset.size == (9, 12)
    assert dataset.train[0][0].shape[1:] == (12, 1)
    assert len(dataset.split("all")) == 33
    loader = dataset.train.to_loader(falconet.ImageSpec((1, 8, 8), (0.5,), (0.25,)), batch_size=8)
    assert next(iter(loader))[0].shape[1:] == (1, 8, 8)


def test_texts_and_series() -> None:
    labels = [0, 7] * 20
    texts = Dataset.from_arrays([f"sentence {n} says {n % 2}" for n in range(40)], labels)
    assert (texts.kind, texts.classes) == ("text", ("0", "7"))
    assert texts.train[0][0].startswith("sentence")
    values = np.random.default_rng(0).normal(size=(40, 2, 30))
    assert Dataset.from_arrays(values[:, 0], labels).train[0][0].shape == (1, 30)
    several = Dataset.from_arrays(values, labels, config=falconet.DataConfig(kind="series"))
    assert (several.kind, several.channels) == ("series", 2)
    lengths = Dataset.from_arrays([row[0, : 10 + n % 9] for n, row in enumerate(values)], labels)
    assert (lengths.kind, {sample.shape[1] for sample, _ in lengths.train}) == ("series", set(range(10, 19)))


@pytest.mark.parametrize("library", ["mapping", "pandas", "pyarrow"])
def test_tables_in_memory(library: str) -> None:
    cells: dict[str, list[Any]] = {
        "note": [f"row {n} of many" for n in range(40)],
        "mood": ["bad", "good"] * 20,
        "part": ["train"] * 30 + ["test"] * 10,
    }
    df: Any = cells
    if library == "pandas":
        df = pytest.importorskip("pandas").DataFrame(cells)
    if library == "pyarrow":
        df = pytest.importorskip("pyarrow").table(cells)
    dataset = Dataset.from_dataframe(df, text="note", label="mood", split="part")
    assert (dataset.kind, dataset.classes, len(dataset.test)) == ("text", ("bad", "good"), 10)
    assert dataset.made_splits == {"val"}
    assert dataset.columns == {"text": "note", "label": "mood", "split": "part"}


def test_series_and_files_of_tables(make_folder: FolderMaker) -> None:
    values = np.random.default_rng(0).normal(size=200)
    numbers = [n // 10 for n in range(200)]
    df = {"id": numbers, "t": list(range(200)), "v": values, "y": [number % 2 for number in numbers]}
    series = Dataset.from_dataframe(df, label="y", series="id", time="t")
    assert (series.kind, series.train[0][0].shape) == ("series", (1, 10))
    root = make_folder()
    names = sorted(path.relative_to(root).as_posix() for path in root.glob("*/*.png"))
    labels = [name.partition("/")[0] for name in names]
    files = Dataset.from_dataframe({"file": names, "y": labels}, path="file", label="y", root=root)
    assert (files.kind, files.classes) == ("image", ("dark", "light"))
    assert files.train[0][0].shape == (16, 20, 3)


X, Y = make_arrays(30)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dataset.from_arrays(X, Y[:-1]), "wanted as many labels as samples, found 30 samples and 29 labels"),
        (lambda: Dataset.from_arrays([], []), "x: wanted samples, found none"),
        (lambda: Dataset.from_arrays(X[:0], Y[:0]), r"x: wanted samples, found an array of shape \(0, 12, 12\)"),
        (lambda: Dataset.from_arrays("photos", Y), "x: wanted an array, or a list .*, found str"),
        (lambda: Dataset.from_arrays([1, 2], Y[:2]), r"x\[0\]: wanted a text, a PIL image or an array, found int"),
        (lambda: Dataset.from_arrays(["a", X[0]], Y[:2]), r"x\[1\]: wanted a text, found ndarray"),
        (lambda: Dataset.from_arrays(["a", " "], Y[:2]), r"x\[1\]: empty text; leave this sample out"),
        (lambda: Dataset.from_arrays(X, None), "y: wanted a label for each sample, found NoneType"),
        (lambda: Dataset.from_arrays(X, [None] * 30), r"y\[0\]: wanted a class, found None"),
        (lambda: Dataset.from_arrays(X, np.eye(30)), r"y: wanted one label a sample, found shape \(30, 30\)"),
        (lambda: Dataset.from_arrays(X, np.arange(30) + 0.5), "y: wanted whole numbers or strings as labels"),
        (lambda: Dataset.from_arrays(X, ["one"] * 30), "arrays: wanted at least two classes, found one, 'one'"),
        (lambda: Dataset.from_arrays(X, Y, test=X), "test: wanted a pair of samples and labels, found ndarray"),
        (lambda: Dataset.from_arrays([X[0], X[1][:5] / 2], Y[:2]), r"x: wanted images of uint8, .*, found float64"),
        (lambda: Dataset.from_arrays([X[0] / 2, X[1][:5] / 2], Y[:2]), "x: wanted uint8 for images of several sizes"),
        (
            lambda: Dataset.from_arrays(X, Y, test=(X / 255, Y)),
            r"test\[0\]: wanted images of uint8, as the first one for training, found float64; give all the same type",
        ),
        (lambda: Dataset.from_dataframe(3), "df: wanted a DataFrame, .*, found int"),
        (lambda: Dataset.from_dataframe({"a": ["x"], "b": ["y"]}, label="c"), "unknown column 'c': known: a, b"),
        (lambda: Dataset.from_dataframe({"a": ["x"], "b": []}), "wanted columns of one length, found 0, 1"),
        (lambda: Dataset.from_dataframe({"a": [], "b": []}), "wanted a table with rows, found 2 columns without any"),
        (lambda: Dataset.from_arrays(X, Y).splits["train"].classes, "wanted a split such as dataset.test"),
    ],
)
def test_mistakes_in_data_are_one_line(make: Callable[[], object], message: str) -> None:
    with pytest.raises(FalconetError, match=message) as caught:
        make()
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


# Training


@pytest.mark.slow
def test_nothing_is_written_but_where_out_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = Dataset.from_arrays(*make_arrays(30))
    short = train(dataset, model="lenet_relu", training={"epochs": 1}, progress=False)
    model, folder = short.model, short.out
    assert (folder / "report.html").is_file()
    del short
    gc.collect()
    # The model came from there, and lives on.
    assert folder.is_dir()
    del model
    gc.collect()
    assert not folder.exists()
    assert list(tmp_path.iterdir()) == []
    kept = train(dataset, model="lenet_relu", training=TrainConfig(epochs=1, batch_size=8), out="kept", progress=False)
    assert kept.out == Path("kept")
    assert falconet.load("kept").predict(X[:2]).tolist() == kept.model.predict(X[:2]).tolist()
    with pytest.raises(RunExistsError):
        train(dataset, model="lenet_relu", epochs=1, out="kept", progress=False)
    assert (kept.architecture, kept.report.settings["training"]["batch_size"]) == ("lenet_relu", 8)


def test_a_split_that_near_duplicates_leave_nearly_empty_is_noted(capsys: pytest.CaptureFixture[str]) -> None:
    steps = np.linspace(0, 1, 40)
    tilts = 1 + np.arange(60) / 1e4  # Each is nearly the next one.
    x, y = np.stack([60 * np.add.outer(steps, tilt * steps) for tilt in tilts]), np.arange(60) % 2
    dataset = Dataset.from_arrays(x.astype(np.uint8), y)
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [60, 0, 0]
    told = "val has 0 samples instead of about 6: near duplicates stay on one side of a split (near_duplicates=apart"
    assert any(note.startswith(told) for note in dataset.notes)
    with pytest.raises(DataError, match="or place near duplicates, which count as one, by near_duplicates=apart"):
        train(dataset, model="linear", epochs=1)
    apart = Dataset.from_arrays(x.astype(np.uint8), y, config=falconet.DataConfig(near_duplicates="apart"))
    assert len(apart.val) == 6
    assert not apart.notes


def test_rows_that_are_left_out_are_told_before_training(capsys: pytest.CaptureFixture[str]) -> None:
    pd = pytest.importorskip("pandas")
    words = [f"{'good' if number % 2 else 'bad'} film, number {number}" for number in range(40)]
    frame = pd.DataFrame({"review": ["", *words], "label": ["bad", *(["bad", "good"] * 20)]})
    train(Dataset.from_dataframe(frame, text="review", label="label"), model="linear", epochs=1)
    assert "skipped 1 unreadable samples, the first: " in capsys.readouterr().err


def test_values_that_images_seldom_have_are_noted() -> None:
    x, y = make_arrays(30)
    dark = Dataset.from_arrays(np.round(x / x.max() * 16), y)  # As scikit-learn has its digits.
    assert dark.notes == (
        "values up to 16 are taken as of 0 to 255, so that images are dark; where 16 is white, multiply them by 15.94",
    )
    assert not Dataset.from_arrays(x, y).notes
    assert not Dataset.from_arrays(x / 255, y).notes
    assert Dataset.from_arrays(np.zeros_like(x), y, config=falconet.DataConfig(near_duplicates="apart")).notes == (
        "all images are black",
    )
    long = np.random.default_rng(0).random((30, 2, 64))
    assert "kind='series' takes them as series of 2 channels" in Dataset.from_arrays(long, y).notes[-1]
    assert not Dataset.from_arrays(long, y, config=falconet.DataConfig(kind="series")).notes


def test_mistakes_leave_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: Dataset) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(UsageError, match="if_exists: wanted a run's folder to resume, found none; name it as out"):
        train(dataset, if_exists="resume")
    with pytest.raises(ConfigError, match=r"data\.split_seed: wanted none for a Dataset, which is read already"):
        train(dataset, settings={"data": {"split_seed": 1}})
    with pytest.raises(UsageError, match="unknown model 'lenet_rule'"):
        train(dataset, model="lenet_rule")
    assert list(tmp_path.iterdir()) == []


def test_progress_is_shown_unless_it_is_not_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    dataset = Dataset.from_arrays(*make_arrays(30))
    train(dataset, model="lenet_relu", epochs=1)
    assert "lenet_relu: epoch 1/1" in capsys.readouterr().err
    train(dataset, model="lenet_relu", epochs=1, progress=False)
    assert capsys.readouterr() == ("", "")


def make_module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 3))


def make_tensors(count: int = 60) -> TensorDataset:
    numbers = torch.arange(count) % 3
    inputs = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(0)) + numbers[:, None, None, None]
    return TensorDataset(inputs, numbers)


class Stream(IterableDataset[Any]):
    """Has no length."""

    def __iter__(self) -> Any:
        return iter(make_tensors())


def test_fit_takes_what_torch_takes() -> None:
    config, val = TrainConfig(epochs=3, learning_rate=0.05), DataLoader(make_tensors(30), batch_size=10)
    loader = DataLoader(make_tensors(), batch_size=16, shuffle=True)
    first = falconet.fit(make_module(), loader, val, config)
    torch.rand(7)  # Whatever else was drawn before.
    again = falconet.fit(make_module(), loader, val, config)
    assert [row.train_loss for row in first.history] == [row.train_loss for row in again.history]
    assert first.history[-1].train_loss < first.history[0].train_loss
    stream = falconet.fit(make_module(), DataLoader(Stream(), batch_size=16), val, config)
    assert len(stream.history) == 3
    inputs, numbers = make_tensors().tensors
    arrays = [(inputs.double().numpy(), numbers.int().numpy())]
    assert falconet.fit(make_module(), arrays, arrays, config).ending == "completed"
    network = falconet.create_model("resnet20", num_classes=3, in_channels=3, input_size=32)
    assert isinstance(network, nn.Module)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


INPUTS, NUMBERS = make_tensors().tensors


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ((batch for batch in [(INPUTS, NUMBERS)]), "train: wanted an iterable .*, .* used up after one epoch"),
        ({"x": INPUTS}, "train: wanted an iterable of .* such as a DataLoader, found dict"),
        ([], "train: wanted a loader of one batch or more, found one without batches"),
        ([INPUTS], "train, batch 0: wanted a pair of inputs and class numbers, found Tensor"),
        ([(INPUTS, NUMBERS, NUMBERS)], "train, batch 0: wanted a pair of inputs and class numbers, found 3 entries"),
        ([(INPUTS.byte(), NUMBERS)], "wanted inputs as float32, or tokens as int64, found torch.uint8"),
        ([(INPUTS, NUMBERS + 1)], "wanted class numbers of 0 to 2, as the network has 3 outputs, found 3"),
        ([(INPUTS, NUMBERS - 1)], "wanted class numbers of 0 to 2, as the network has 3 outputs, found -1"),
        (
            [(INPUTS, NUMBERS / 2)],
            "wanted class numbers, whole and one an input, or a probability of each class, found torch.float32",
        ),
        ([(INPUTS, NUMBERS[1:])], "wanted a label for each input, found 60 inputs, 59 labels"),
        ([(INPUTS, ["a"] * 60)], "train, batch 0: wanted class numbers, found str"),
        ([(INPUTS[:, :2], NUMBERS)], r"wanted inputs that the network takes, found some of shape \(2, 4, 4\)"),
    ],
)
def test_mistakes_in_batches_are_one_line(loader: Any, message: str) -> None:
    with pytest.raises(FalconetError, match=message) as caught:
        falconet.fit(make_module(), loader, [(INPUTS, NUMBERS)], TrainConfig(epochs=1))
    assert "\n" not in str(caught.value)


def test_a_loader_walks_through_epochs(dataset: Dataset, run: Run) -> None:
    loader = dataset.train.to_loader(run.model.spec, batch_size=16, shuffle=True, seed=3)
    walks = [torch.cat([numbers for _, numbers in loader]).tolist() for _ in range(2)]
    assert walks[0] != walks[1]
    assert sorted(walks[0]) == sorted(walks[1]) == sorted(dataset.train.labels.tolist())
    epochs = [torch.cat([batch[1] for batch in loader.epoch(number)]).tolist() for number in (1, 2)]
    assert walks == epochs
    plain = dataset.train.to_loader(run.model.spec)
    assert torch.cat([numbers for _, numbers in plain]).tolist() == dataset.train.labels.tolist()


def test_labels_of_a_loader_are_positions_in_classes(dataset: Dataset) -> None:
    spec = falconet.ImageSpec((1, 8, 8), (0.5,), (0.25,))
    numbers = torch.cat([batch[1] for batch in dataset.train.to_loader(spec, classes=CLASSES[::-1])])
    assert numbers.tolist() == [2 - label for label in dataset.train.labels.tolist()]


def test_mixed_targets_of_a_loader_have_a_column_for_each_class(dataset: Dataset) -> None:
    spec, mixing = falconet.ImageSpec((1, 8, 8), (0.5,), (0.25,)), falconet.ImageAugmentation(mixup=1.0)
    loader = dataset.train.to_loader(spec, batch_size=4, augmentation=mixing, classes=[*CLASSES, "another"])
    assert next(iter(loader))[1].shape == (4, len(CLASSES) + 1)


# A model


def test_a_model_answers(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    model, picture = run.model, Image.fromarray(X[1])
    Image.fromarray(X[0]).save(tmp_path / "a.png")
    answers = model.predict([tmp_path / "a.png", picture, X[2]])
    assert answers.tolist() == model.predict(X[:3]).tolist()
    assert set(model.predict(dataset.test)) <= set(model.classes)
    probabilities = model.predict_proba(X)
    assert probabilities.shape == (30, 3)
    assert probabilities.dtype == np.float32
    assert np.array_equal(np.array(model.classes)[probabilities.argmax(axis=1)], model.predict(X))
    assert len(model.predict(picture)) == 1
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"b\.png: not an image.*; leave it out, or let falconet\.predict answer"):
        model.predict([tmp_path / "a.png", tmp_path / "b.png"])
    assert repr(model).startswith("Model(lenet_relu, image 1x")


@pytest.mark.slow
def test_evaluating_splits_data_sets_and_models_is_one_thing(run: Run, dataset: Dataset) -> None:
    model = run.model
    assert model.evaluate(dataset.test) == model.evaluate(dataset) == falconet.evaluate(model, dataset.test) == run.test
    assert falconet.evaluate(run.out, dataset) == run.test
    assert model.evaluate(dataset.val).split == "val"
    assert model.evaluate(dataset.split("test")) == run.test
    assert model.evaluate(dataset.split("all")) == model.evaluate(dataset, split="all")
    with pytest.raises(UsageError, match=r"such as dataset\.test or dataset\.split\(name\), found"):
        model.evaluate(dataset.splits["test"])
    part = model.evaluate(dataset.test.take(np.arange(5)))
    assert (part.n, part.split) == (5, "test")
    assert model.evaluate(dataset.test, against=model).against is not None
    assert falconet.measure_robustness(model, dataset.test, attacks=False).clean_accuracy == run.test.accuracy
    # Classes are matched by their names, in whatever order a data set has them.
    test = dataset.test
    turned = replace(dataset, classes=dataset.classes[::-1])
    other = replace(test, labels=len(dataset.classes) - 1 - test.labels, owner=turned)
    assert falconet.measure_robustness(model, other, attacks=False).clean_accuracy == run.test.accuracy
    assert falconet.measure_costs(model, dataset.test.samples, starts=1, energy_seconds=0.1).batch == 64


@pytest.mark.parametrize("name", ["evaluate", "explain", "export"])
def test_methods_take_what_functions_take(name: str) -> None:
    """And by the same defaults."""
    method, function = (inspect.signature(getattr(home, name)).parameters for home in (Model, falconet))
    taken, wanted = ({key: (one.kind, one.default) for key, one in part.items()} for part in (method, function))
    assert taken.pop("self")
    assert wanted.pop("model")
    assert taken == wanted


def test_splits_that_were_made_of_other_data_are_no_test(run: Run) -> None:
    other = Dataset.from_arrays(*make_arrays(60, seed=1), name="others")
    result = run.model.evaluate(other.test)
    assert (result.split, result.n) == ("test", len(other.test))
    assert result.notes[0].startswith("others is not what the model was trained on; whether it was trained on some")
    whole = run.model.evaluate(other)
    assert (whole.split, whole.n) == ("all", 60)
    with pytest.raises(DataError, match="others is not the data that the model was trained on"):
        run.model.evaluate(other, split="test")
    with pytest.raises(DataError, match="wanted image data, as the model takes, found text"):
        run.model.evaluate(Dataset.from_arrays(["a b", "c d", "e f", "g h"] * 3, [0, 1] * 6).test)


def test_a_data_set_that_was_split_otherwise_is_refused(run: Run) -> None:
    turned = Dataset.from_arrays(*make_arrays(), config=falconet.DataConfig(split_seed=5))
    with pytest.raises(DataError, match=r"the model was trained with data\.split_seed=0, not 5"):
        run.model.evaluate(turned.test)
    with pytest.raises(DataError, match=r"the model was trained with data\.split_seed=0, not 5"):
        run.model.compress(turned, progress=False)


@pytest.mark.slow
def test_explanations_need_no_folder(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    found = run.model.explain([Image.fromarray(X[0]), X[1]], method="gradcam")
    assert [item.method for item in found.items] == ["gradcam"] * 2
    page = Path(found.page)
    assert page.is_file()
    del found
    gc.collect()
    assert not page.exists()
    kept = run.model.explain(dataset.test, method="gradcam", samples=3, out=tmp_path / "why")
    assert len(kept.items) == 3
    assert len(falconet.explain(run.model, dataset, method="gradcam", samples=2, out=tmp_path / "more").items) == 2


def test_a_saved_model_is_the_model(run: Run, tmp_path: Path) -> None:
    run.model.save(tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md", "metrics.json", "report.html"}
    again = falconet.load(tmp_path / "saved")
    assert np.array_equal(again.predict_proba(X), run.model.predict_proba(X))
    assert again.artifact.digest == run.model.artifact.digest
    assert again.module is again.artifact.model
    assert open_artifact(again) is again.artifact


@pytest.mark.slow
def test_what_a_module_learns_elsewhere_is_the_model_s(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    run.model.save(tmp_path / "before")
    (tmp_path / "before" / "report.html").write_bytes((run.out / "report.html").read_bytes())
    model = falconet.load(tmp_path / "before")
    before = model.predict_proba(dataset.test)
    module = model.module
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module.train()
    for x, y in dataset.train.to_loader(model.spec, batch_size=16, seed=0):
        optimizer.zero_grad()
        torch.autograd.backward(torch.nn.functional.cross_entropy(module(x), y))
        optimizer.step()
        assert model.module.training, "or asking for the module would end the training mode"
    after = model.predict_proba(dataset.test)
    assert not module.training, "or dropout decides what is predicted"
    assert model.module is module
    assert np.abs(after - before).max() > 1e-3
    model.save(tmp_path / "after")
    saved = falconet.load(tmp_path / "after")
    assert np.array_equal(saved.predict_proba(dataset.test), after)
    assert all(torch.equal(saved.artifact.weights[name], tensor) for name, tensor in module.state_dict().items())
    assert saved.artifact.digest != falconet.load(tmp_path / "before").artifact.digest
    assert not (tmp_path / "after" / "report.html").exists(), "it speaks of other weights"
    model.export("onnx", tmp_path / "after.onnx", source=dataset)  # Its gate compares with what predict answers.


def test_a_compressed_model_that_learns_more_is_saved_with_its_new_weights(run: Run, tmp_path: Path) -> None:
    model = Model(encode_artifact(run.model.artifact))
    assert model.artifact.coded is not None
    bias = [parameter for parameter in model.module.parameters() if parameter.ndim == 1][-1]
    with torch.no_grad():
        bias.add_(1)
    model.save(tmp_path)
    assert torch.equal([*falconet.load(tmp_path).module.state_dict().values()][-1], bias)
    assert not (tmp_path / "model.fnet").exists()


def test_weights_that_are_no_numbers_replace_nothing(run: Run, tmp_path: Path) -> None:
    run.model.save(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    model = falconet.load(tmp_path)
    with torch.no_grad():
        next(model.module.parameters()).fill_(float("nan"))
    with pytest.raises(ArtifactError, match="wanted weights that are numbers, found NaN or infinity in"):
        model.save(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_a_module_in_another_precision_is_refused(run: Run, dataset: Dataset) -> None:
    model = Model(open_artifact(run.out))
    model.module.double()
    with pytest.raises(
        ArtifactError, match=r"module: wanted float32 on the CPU, found float64 on cpu; call module\.float"
    ):
        model.artifact  # noqa: B018
    model.module.float()
    assert len(model.predict(dataset.test)) == len(dataset.test)


def test_an_artifact_keeps_its_own_weights(run: Run, dataset: Dataset) -> None:
    artifact = open_artifact(run.out)
    model = Model(replace(artifact, config=replace(artifact.config, calibration_temperature=2.5)))
    before, expected = model.artifact, model.predict_proba(dataset.test)
    with torch.no_grad():
        next(model.module.parameters()).mul_(-1)
    assert not np.array_equal(model.predict_proba(dataset.test), expected)
    assert np.array_equal(Model(before).predict_proba(dataset.test), expected)
    assert model.artifact.path == before.path, "or its settings of augmentation were lost"
    assert model.artifact.config.calibration_temperature == 1, "or other logits were called calibrated"


def test_a_split_of_the_source_s_own_counts_for_no_other() -> None:
    x, y = make_arrays(100)
    x[1] = x[0]
    x[1, 0, 0] += 1  # A near duplicate.
    dataset = Dataset.from_arrays(x, y, test=make_arrays(400, seed=1))
    assert len(dataset.val) >= 9
    assert not [note for note in dataset.notes if "samples instead of about" in note]


def test_a_module_whose_layers_are_others_is_refused(run: Run, tmp_path: Path) -> None:
    model = Model(open_artifact(run.out))
    model.module.add_module("further", nn.Linear(2, 2))
    with pytest.raises(ArtifactError, match=r"module: wanted the tensors of lenet_relu, found further\.\w+ added"):
        model.save(tmp_path)


@pytest.mark.slow
def test_models_are_compared_on_arrays(dataset: Dataset, tmp_path: Path) -> None:
    lines: list[str] = []
    arguments: dict[str, Any] = {"out": tmp_path, "seeds": 1, "epochs": 1, "notify": lines.append}
    found = falconet.compare(dataset, ["lenet5", "linear"], **arguments)
    assert {row.model for row in found.rows} == {"lenet5", "linear"}
    assert found.n == len(dataset.test)
    again = falconet.compare(dataset, ["lenet5", "linear"], **arguments)
    assert sum("(kept)" in line for line in lines) == 2
    assert [row.accuracy for row in again.rows] == [row.accuracy for row in found.rows]
    with pytest.raises(UsageError, match="has changed since"):
        falconet.compare(Dataset.from_arrays(*make_arrays(seed=1)), ["lenet5", "linear"], **arguments)
    with pytest.raises(ConfigError, match=r"data\.val_fraction: wanted none for a Dataset, which is read already"):
        falconet.compare(dataset, ["lenet5", "linear"], settings={"data": {"val_fraction": 0.3}}, **arguments)


@pytest.mark.slow
def test_a_trial_that_came_near_is_kept(run: Run, dataset: Dataset) -> None:
    with pytest.raises(BudgetError, match="the nearest is trial") as told:
        run.model.compress(dataset, max_size=200, max_drop=99, time="2s", epochs=1, progress=False)
    (near,) = re.findall(r"\((/\S+\.fnet)\)", str(told.value))
    assert Path(near).is_file()
    shutil.rmtree(Path(near).parents[1])


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(UsageError, match=r"model: wanted a falconet\.Model, or the path .*, found int"):
        open_artifact(3)
    with pytest.raises(UsageError, match="no such folder: nowhere"):
        falconet.load("nowhere")


@pytest.mark.slow
def test_an_export_is_compared_on_the_model_s_own_arrays(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    result = run.model.export("onnx", tmp_path / "model.onnx")
    assert result.parity.samples == "validation samples of arrays"


@pytest.mark.slow
def test_a_model_is_compressed_in_memory() -> None:
    code = "\n".join(
        (
            "import gc, pytest",
            "from falconet import Dataset, train",
            "from tests.conftest import refuse_exports, sketch_pictures",
            "from tests.test_api import make_arrays",
            "for stop in (refuse_exports, sketch_pictures): stop(pytest.MonkeyPatch())",
            "data = Dataset.from_arrays(*make_arrays())",
            "model = train(data, model='lenet_relu', epochs=2, batch_size=16, progress=False).model",
            "few = {'compression': {'refinements': 0, 'sensitivity': False}}",
            "small = model.compress(data, max_size='20kB', max_drop=50, epochs=1, settings=few, progress=False)",
            "folder = small.artifact.path",
            "assert folder.is_dir() and len(small.artifact.serialize()) <= 20_000",
            "assert small.evaluate(data.test).n == len(data.test)",
            "del small; gc.collect()",
            "assert not folder.exists()",
        )
    )
    # In a process of its own: what checks types in tests keeps callers alive, and so what they name.
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

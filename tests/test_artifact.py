"""The on-disk form of a trained model: what comes back, and what is refused."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from falconet import codec
from falconet.artifact import (
    _FORMAT_VERSION,
    UNKNOWN,
    Artifact,
    ArtifactConfig,
    DataOrigin,
    Provenance,
    build_model,
    current_versions,
    encode_artifact,
    list_stale,
    load_artifact,
)
from falconet.data.preprocessing import TextPreprocess
from falconet.data.texts import TextEncoder, make_wordpiece, train_tokenizer
from falconet.errors import ArtifactError, OutOfMemoryError, PathError, StorageError
from falconet.model_files import CODED_FILE, CONFIG_FILE, WEIGHTS_FILE, check_artifact
from falconet.models import create_model, forward_cost
from falconet.schema import to_mapping
from falconet.spec import ClassificationSpec, ImageSpec, SeriesSpec, TextSpec

SPEC = ImageSpec(shape=(1, 16, 18), mean=(0.5,), std=(0.25,), padding=1)
PAIR = ClassificationSpec(("a", "b"))
CONFIG = ArtifactConfig(
    architecture="lenet5",
    input=SPEC,
    output=ClassificationSpec(("cat", "dog", "élan")),
    provenance=Provenance(DataOrigin("digits", "0f", None, 0.1, 0.2), seed=3, epochs=5, best_epoch=4),
    options={"output": "linear"},
    versions=current_versions(),
)


@pytest.fixture
def artifact() -> Artifact:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create_model("lenet5", num_classes=3, in_channels=1, input_size=(16, 18), output="linear")
    return Artifact(CONFIG, model.state_dict())


@pytest.fixture
def folder(artifact: Artifact, tmp_path: Path) -> Path:
    artifact.save(tmp_path / "model")
    return tmp_path / "model"


def images() -> Tensor:
    return torch.linspace(-1, 1, 2 * 16 * 18).view(2, 1, 16, 18)


def change_config(folder: Path, **changes: Any) -> None:
    record = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    (folder / CONFIG_FILE).write_text(json.dumps({**record, **changes}), encoding="utf-8")


def test_round_trip(artifact: Artifact, folder: Path) -> None:
    loaded = load_artifact(folder)
    assert loaded.config == artifact.config
    assert sorted(entry.name for entry in folder.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]
    assert loaded.weights.keys() == artifact.weights.keys()
    assert all(torch.equal(loaded.weights[name], tensor) for name, tensor in artifact.weights.items())
    assert torch.equal(loaded.model(images()), artifact.model(images()))


def test_model_is_ready_to_predict(folder: Path) -> None:
    state = torch.get_rng_state()
    artifact = load_artifact(str(folder))
    assert not artifact.model.training
    assert artifact.model is artifact.model
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_are_fit_for_gradients_whoever_asks_first(folder: Path) -> None:
    with torch.inference_mode():
        model = load_artifact(folder).model
    assert not any(parameter.is_inference() for parameter in model.parameters())


def test_same_model_same_bytes(artifact: Artifact, folder: Path, tmp_path: Path) -> None:
    load_artifact(folder).save(tmp_path / "again")
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    assert (folder / WEIGHTS_FILE).read_bytes() == artifact.serialize()


def test_memory_layout_does_not_matter(artifact: Artifact) -> None:
    turned = {
        name: tensor.mT.contiguous().mT if tensor.ndim > 1 else tensor for name, tensor in artifact.weights.items()
    }
    assert not turned["f6.weight"].is_contiguous()
    assert Artifact(CONFIG, turned).serialize() == artifact.serialize()


@pytest.mark.slow
def test_another_process_answers_the_same(folder: Path, tmp_path: Path, artifact: Artifact) -> None:
    code = """
import sys, numpy, torch, falconet
images = torch.from_numpy(numpy.load(sys.argv[2]))
with torch.no_grad():
    numpy.save(sys.argv[3], falconet.load_artifact(sys.argv[1]).model(images).numpy())
"""
    np.save(tmp_path / "images.npy", images().numpy())
    paths = [str(folder), str(tmp_path / "images.npy"), str(tmp_path / "logits.npy")]
    subprocess.run([sys.executable, "-c", code, *paths], check=True)
    found = torch.from_numpy(np.load(tmp_path / "logits.npy"))
    torch.testing.assert_close(found, artifact.model(images()).detach(), rtol=0, atol=1e-6)


def test_nothing_is_unpickled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("pickle was used")

    for owner, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(owner, name, refuse)
    assert load_artifact(folder).model(images()).shape == (2, 3)


def test_pickled_weights_are_refused_unread(folder: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, folder / WEIGHTS_FILE)
    with pytest.raises(ArtifactError, match=rf"{WEIGHTS_FILE} is damaged"):
        load_artifact(folder)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(PathError, match=r"no such folder: .*missing$"):
        load_artifact(tmp_path / "missing")


@pytest.mark.parametrize("name", ["nothere.onnx", "nothere.xml", "nothere.fnet"])
def test_a_file_that_is_not_there_is_called_one(name: str) -> None:
    with pytest.raises(PathError, match=f"^no such file: {name}$"):
        check_artifact(name)


def test_folder_without_artifact(tmp_path: Path) -> None:
    with pytest.raises(
        PathError, match=r"wanted a trained model \(config.json and model.safetensors or model.fnet\), found none$"
    ):
        load_artifact(tmp_path)


def test_file_in_the_place_of_a_folder(folder: Path) -> None:
    with pytest.raises(PathError, match="wanted a trained model"):
        load_artifact(folder / WEIGHTS_FILE)


def test_unfinished_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0\n", encoding="utf-8")
    with pytest.raises(PathError, match=r"found an unfinished run \(`falconet train --resume` goes on with it\)"):
        check_artifact(tmp_path)


def test_check_is_content_with_a_config(folder: Path) -> None:
    check_artifact(folder)
    check_artifact(str(folder))


def test_missing_weights(folder: Path) -> None:
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(ArtifactError, match=rf"{WEIGHTS_FILE} is missing$"):
        load_artifact(folder)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_weights(folder: Path, kept: int) -> None:
    content = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(content[:kept])
    with pytest.raises(ArtifactError, match=rf"{WEIGHTS_FILE} is damaged: ") as caught:
        load_artifact(folder)
    assert "\n" not in str(caught.value)


def test_truncated_config(folder: Path) -> None:
    content = (folder / CONFIG_FILE).read_bytes()
    (folder / CONFIG_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match=rf"{CONFIG_FILE} is damaged: "):
        load_artifact(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": 5}, "architecture: wanted str, found 5"),
        ({"architectur": "lenet5"}, "did you mean architecture"),
        ({"output": {"task": "guessing"}}, "output.task: wanted classification, found 'guessing'"),
        ({"input": {"kind": "image", "shape": [1, 16]}}, "input.shape: wanted 3 values, found 2"),
        ({"provenance": None}, "provenance: wanted a mapping of settings, found None"),
    ],
)
def test_altered_config(folder: Path, changes: dict[str, Any], message: str) -> None:
    change_config(folder, **changes)
    with pytest.raises(ArtifactError, match=rf"{CONFIG_FILE} is damaged: .*{message}"):
        load_artifact(folder)


@pytest.mark.parametrize(
    ("found", "said"), [(_FORMAT_VERSION + 1, "3"), (None, "None"), ("1", "'1'"), ("x" * 10**5, r"'x{10,300}.*'")]
)
def test_newer_format(folder: Path, found: object, said: str) -> None:
    change_config(folder, format_version=found, something="new")
    with pytest.raises(ArtifactError, match=f"wanted format version {_FORMAT_VERSION} or lower, found {said}: update"):
        load_artifact(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "lenet9"}, "unknown model 'lenet9'"),
        ({"options": {"outputs": "linear"}}, "unknown option of lenet5 'outputs'"),
        ({"options": {"num_classes": 5}}, "num_classes"),
    ],
)
def test_model_that_cannot_be_built(folder: Path, changes: dict[str, Any], message: str) -> None:
    change_config(folder, **changes)
    artifact = load_artifact(folder)
    with pytest.raises(
        ArtifactError, match=f"config.json describes no model that this falconet can build: .*{message}"
    ):
        _ = artifact.model


def without(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in weights.items() if key != name}


def test_altered_weights(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS_FILE).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"{WEIGHTS_FILE} is altered, or not the one that {CONFIG_FILE}"):
        load_artifact(folder)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"c1": [3, 1]}, r"the weights do not fit lenet5: wanted c1\.weight of shape \[3, 1, 5, 5\]"),
        ({"c1": [7, 1]}, r"widths\.c1\.out: wanted a whole number from 1 to 6, found 7"),
        ({"c7": [3, 1]}, r"widths\.c7: wanted the name of a convolution"),
    ],
)
def test_widths_that_no_network_has(folder: Path, widths: object, message: str) -> None:
    change_config(folder, widths=widths)
    with pytest.raises(ArtifactError, match=message):
        _ = load_artifact(folder).model


def test_layers_that_do_not_fit_each_other(artifact: Artifact) -> None:
    weights = {**artifact.weights, "c1.weight": torch.zeros(3, 1, 5, 5), "c1.bias": torch.zeros(3)}
    with pytest.raises(ArtifactError, match="widths: wanted layers that fit each other"):
        _ = Artifact(replace(CONFIG, widths={"c1": [3, 1]}), weights).model


def test_widths_that_other_weights_have(folder: Path) -> None:
    change_config(folder, widths={"c5": {"out": 60}, "f6": {"in": 60}})
    with pytest.raises(ArtifactError, match="the weights do not fit lenet5"):
        _ = load_artifact(folder).model


@pytest.mark.parametrize("problem", ["missing", "unexpected", "shape"])
def test_weights_that_do_not_fit(folder: Path, artifact: Artifact, problem: str) -> None:
    weights = {
        "missing": without(artifact.weights, "f6.bias"),
        "unexpected": {**artifact.weights, "f7.bias": torch.zeros(2)},
        "shape": {**artifact.weights, "f6.bias": torch.zeros(2)},
    }[problem]
    Artifact(artifact.config, weights).save(folder)
    with pytest.raises(ArtifactError, match=r"the weights do not fit lenet5: .*f[67]\.bias") as caught:
        _ = load_artifact(folder).model
    assert "\n" not in str(caught.value)


def test_failed_save_keeps_the_old_artifact(folder: Path, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise OSError("disk full")

    other = Artifact(CONFIG, {name: torch.zeros_like(tensor) for name, tensor in artifact.weights.items()})
    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(StorageError, match="disk full"):
        other.save(folder)
    assert torch.equal(load_artifact(folder).model(images()), artifact.model(images()))


def test_options_of_a_file_name_no_other_weights(tmp_path: Path) -> None:
    spec = ImageSpec((3, 28, 28), (0.5,) * 3, (0.25,) * 3)
    origin = Provenance(DataOrigin("digits", "00", 0, 0.1, 0.2), seed=0, epochs=1, best_epoch=1)
    config = ArtifactConfig(
        "resnet20", spec, ClassificationSpec(("a", "b")), origin, options={"pretrained": str(tmp_path / "other.pth")}
    )
    with pytest.raises(ArtifactError, match="describes no model that this falconet can build"):
        build_model(config)


def test_a_coded_model_comes_back_from_its_folder_and_from_its_file_alone(artifact: Artifact, tmp_path: Path) -> None:
    coded = encode_artifact(artifact)
    coded.save(tmp_path)
    assert not (tmp_path / WEIGHTS_FILE).exists()
    assert (tmp_path / CODED_FILE).read_bytes() == coded.serialize()
    alone = tmp_path / "elsewhere" / "tiny.fnet"
    alone.parent.mkdir()
    alone.write_bytes(coded.serialize())
    whole, file = load_artifact(tmp_path), load_artifact(alone)
    assert whole.config == artifact.config
    assert file.config.provenance == UNKNOWN
    for name in ("architecture", "input", "output", "options", "widths", "calibration_temperature"):
        assert getattr(file.config, name) == getattr(artifact.config, name)
    for found in (whole, file):
        assert list(found.weights) == list(artifact.weights)
        for name, tensor in artifact.weights.items():
            assert torch.equal(found.weights[name], tensor)
    sample = torch.rand(2, *SPEC.shape)
    assert torch.equal(whole.model(sample), artifact.model(sample))


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_coded_texts_bring_their_tokenizer_along(kind: str, tmp_path: Path) -> None:
    words = ["[PAD]", "[MASK]", "[UNK]", "[CLS]", "[SEP]", "one", "two"]
    tokenizer = train_tokenizer(["one two three two one"] * 5, 300) if kind == "bpe" else make_wordpiece(words)
    vocab_size = TextEncoder(tokenizer, 1).vocab_size
    config = replace(CONFIG, architecture="gru", input=TextSpec((9,), vocab_size), output=PAIR, options={"hidden": 4})
    coded = encode_artifact(Artifact(config, build_model(config).state_dict(), tokenizer))
    (tmp_path / "text.fnet").write_bytes(coded.serialize())
    replace(coded, coded=None).save(tmp_path / "folder")
    for path in (tmp_path / "text.fnet", tmp_path / "folder"):
        found = load_artifact(path)
        assert found.tokenizer == tokenizer
        assert isinstance(found.preprocess, TextPreprocess)
        rows = found.preprocess.prepare(["two one"]).numpy()
        assert np.array_equal(rows, TextEncoder(tokenizer, 9).encode(["two one"]))
        assert np.count_nonzero(rows) > 1


def test_damaged_coded_models_are_refused_with_their_name(artifact: Artifact, tmp_path: Path) -> None:
    coded = encode_artifact(artifact)
    coded.save(tmp_path)
    content = bytearray(coded.serialize())
    content[len(content) // 2] ^= 4
    for damaged in (bytes(content), coded.serialize()[:-9], b"", b"PK\3\4 something else"):
        (tmp_path / CODED_FILE).write_bytes(damaged)
        for path in (tmp_path, tmp_path / CODED_FILE):
            with pytest.raises(ArtifactError, match=r"model\.fnet"):
                load_artifact(path)
    (tmp_path / CODED_FILE).unlink()
    with pytest.raises(ArtifactError, match=r"model\.fnet is missing"):
        load_artifact(tmp_path)
    other = encode_artifact(replace(artifact, config=replace(CONFIG, calibration_temperature=2.0)))
    (tmp_path / CODED_FILE).write_bytes(other.serialize())
    with pytest.raises(ArtifactError, match="altered, or not the one"):
        load_artifact(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"architecture": "lenet5"},
        {"architecture": 5, "input": {}},
        {"nonsense": 1},
        {"tokenizer": "a"},
        {"tokenizer": 5},
    ],
)
def test_a_coded_file_of_no_model_is_refused(header: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "odd.fnet").write_bytes(codec.encode(header, {"a": np.zeros(3, np.float32)}))
    with pytest.raises(ArtifactError, match="header is damaged"):
        load_artifact(tmp_path / "odd.fnet")


def describe(artifact: Artifact) -> dict[str, str]:
    """Return a card, a page and figures that name the weights that they speak of."""
    return {
        "README.md": f"---\nweights_sha256: {artifact.digest}\n---\n",
        "report.html": f'<meta name="weights_sha256" content="{artifact.digest}">',
        "metrics.json": json.dumps({"weights_sha256": artifact.digest}),
    }


def test_what_speaks_of_earlier_weights_goes_with_them(artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    artifact.save(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine", "there was no model that it could be about"
    artifact.save(tmp_path, describe(artifact))
    (tmp_path / "config.yaml").write_text("mine too")
    assert list_stale(tmp_path) == ()
    other = Artifact(CONFIG, {name: torch.zeros_like(tensor) for name, tensor in artifact.weights.items()})
    other.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG_FILE, WEIGHTS_FILE, "config.yaml"}
    encode_artifact(other).save(tmp_path, describe(encode_artifact(other)))
    assert not (tmp_path / WEIGHTS_FILE).exists(), "weights of another form are those of another model"
    assert list_stale(tmp_path) == ()
    for name, text in describe(artifact).items():
        (tmp_path / name).write_text(text)
        assert name in list_stale(tmp_path)
    assert load_artifact(tmp_path).digest == encode_artifact(other).digest


def test_an_artifact_is_read_whole_after_a_kill_in_the_middle_of_its_swap(
    artifact: Artifact, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    other = Artifact(CONFIG, {name: torch.ones_like(tensor) for name, tensor in artifact.weights.items()})
    replace_file, moves = Path.replace, 0

    def die(source: Path, target: Path) -> Path:
        nonlocal moves
        moves += 1
        if moves > 2:  # The swap itself, and the weights.
            raise Killed
        return replace_file(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(Killed):
            other.save(folder)
    assert (folder / ".swap").is_dir()
    assert load_artifact(folder).digest == other.digest
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]


IMAGES = {"kind": "image", "labels": ["a", "b"], "mean": [0.0], "std": [1.0], "shape": [1, 28, 28]}
PHOTOS = {**IMAGES, "mean": [0.0] * 3, "std": [1.0] * 3, "shape": [3, 224, 224]}
TEXTS = {**to_mapping(TextSpec((9,), 300)), "labels": ["a", "b"]}
SERIES = {"kind": "series", "labels": ["a", "b"], "mean": [0.0], "std": [1.0], "shape": [1, 99]}
SOUNDS = {**SERIES, "mean": [0.0] * 40, "std": [1.0] * 40, "bands": 40}
GIANTS: list[dict[str, Any]] = [
    {"architecture": "transformer", "options": {"layers": 10**8}, "input": TEXTS},
    {"architecture": "gru", "options": {"layers": 10**5}, "input": TEXTS},
    {"architecture": "gru", "options": {"hidden": 10**9}, "input": TEXTS},
    {"architecture": "lstm", "options": {"hidden": 10**400}, "input": TEXTS},
    {"architecture": "transformer", "options": {"width": 10**9, "heads": 10**9, "expansion": 10**9}, "input": TEXTS},
    {"architecture": "gru", "input": {**TEXTS, "vocab_size": 10**9}},
    {"architecture": "gru", "input": {**TEXTS, "shape": [10**9]}},
    {"architecture": "gru", "input": {**SOUNDS, "rate": 8000, "shape": [40, 10**7]}},
    {"architecture": "gru", "input": {**SOUNDS, "rate": 10**9, "shape": [40, 9]}},
    {"architecture": "gru", "input": {**SOUNDS, "rate": 96_000, "shape": [40, 10**5]}},
    {"architecture": "lenet_relu", "input": {**IMAGES, "shape": [1, 20_000, 20_000]}},
    {"architecture": "lenet_relu", "input": {**IMAGES, "shape": [1, 4096, 4096]}},
    {"architecture": "lenet_relu", "input": {**IMAGES, "shape": [1, 10**4000, 28]}},
    {"architecture": "lenet_relu", "options": {"width": 10**9}, "input": IMAGES},
    {"architecture": "resnet20", "options": {"width": 10**7}, "input": IMAGES},
    {"architecture": "squeezenet1_1", "options": {"base_expand": 10**6}, "input": PHOTOS},
    {"architecture": "efficientnet", "options": {"phi": 10}, "input": PHOTOS},
    {"architecture": "efficientnet", "options": {"phi": 20}, "input": PHOTOS},
    {"architecture": "efficientnet_b7", "input": PHOTOS},
    {"architecture": "alexnet", "input": PHOTOS},
    {"architecture": "lenet5", "input": {**IMAGES, "labels": [str(label) for label in range(50_000)]}},
    {"architecture": "lenet_relu", "options": {"width": 10**6}, "widths": {"conv1": [1, 1]}, "input": IMAGES},
    {"architecture": "torchvision:regnet_y_128gf", "input": PHOTOS},
    {"architecture": "torchvision:resnet18", "options": {"width_per_group": 10**9}, "input": PHOTOS},
    {"architecture": "torchvision:vit_h_14", "widths": {"heads.head": [2, 1]}, "input": PHOTOS},
    {"architecture": "timm:vit_gigantic_patch14_clip_224", "input": PHOTOS},
    {"architecture": "timm:vit_tiny_patch16_224", "options": {"depth": 10**6, "embed_dim": 3}, "input": PHOTOS},
    {"architecture": "timm:resnet18", "options": {"nonsense": {"a": [1]}}, "input": PHOTOS},
]


@pytest.mark.parametrize("header", GIANTS, ids=lambda header: str(header)[:60])
@pytest.mark.parametrize("form", ["coded", "folder"])
def test_a_small_file_of_a_large_network_is_refused_before_there_is_memory_for_it(
    header: dict[str, Any], form: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {key: value for key, value in header["input"].items() if key != "labels"}
    header = {**header, "input": known, "output": {"labels": header["input"]["labels"]}}
    weights = {"a": np.zeros((2, 3), np.float32)}
    if form == "folder":
        import safetensors.numpy

        content = safetensors.numpy.save(weights)
        (folder / WEIGHTS_FILE).write_bytes(content)
        change_config(folder, **{"options": {}, **header}, weights_sha256=sha256(content).hexdigest())
        if header["input"]["kind"] == "text":
            tokenizer = train_tokenizer([], 258)
            (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
            change_config(folder, tokenizer_sha256=sha256(tokenizer.encode()).hexdigest())
    else:
        if header["input"]["kind"] == "text":
            header["tokenizer"] = ""
        (folder / "odd.fnet").write_bytes(codec.encode(header, weights))
        folder = folder / "odd.fnet"
        monkeypatch.setattr(codec, "decode", lambda *_: pytest.fail("values were decoded"))
    largest = LargestTensor()  # type: ignore[no-untyped-call]
    with largest, pytest.raises(ArtifactError) as caught:
        _ = load_artifact(folder).model
    assert largest.bytes < 4 << 20
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["coded", "folder"])
def test_a_small_file_whose_answer_would_take_hours_is_refused(form: str, tmp_path: Path) -> None:
    spec = SeriesSpec((1, 1 << 22), (0.0,), (1.0,))
    config = replace(CONFIG, architecture="gru", input=spec, output=PAIR, options={"hidden": 1, "embedding": 1})
    found = Artifact(config, build_model(config).state_dict())
    (encode_artifact(found) if form == "coded" else found).save(tmp_path / "odd")
    with pytest.raises(
        ArtifactError, match=r"^gru: wanted at most 1.1e\+12 multiply-accumulates for one sample, .*: train with"
    ):
        _ = load_artifact(tmp_path / "odd").model


def test_fewer_samples_are_answered_at_once_where_layers_take_much(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert artifact.batch_size == 256
    again = replace(artifact)
    monkeypatch.setattr(
        forward_cost, "BATCH_BYTES", 3 * forward_cost.measure_forward(again.model, again.make_blank())[1] + 1
    )
    assert again.batch_size == 3
    wide = replace(artifact)
    monkeypatch.setattr(forward_cost, "BATCH_BYTES", 1)
    assert wide.batch_size == 1


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees the bytes of the largest tensor that is made, but for those without memory."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not result.is_meta:
            self.bytes = max(self.bytes, result.nbytes)
        return result


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"f6.bias": torch.full((84,), math.nan)}, r"found NaN or infinity in f6\.bias"),
        ({"c1.weight": torch.full((6, 1, 5, 5), math.inf)}, r"found NaN or infinity in c1\.weight"),
        ({"c5.bias": torch.tensor([-math.inf, *[0.0] * 119])}, r"found NaN or infinity in c5\.bias"),
    ],
)
def test_weights_that_are_no_numbers_are_refused_with_the_name_of_their_tensor(
    artifact: Artifact, changed: dict[str, Tensor], message: str, tmp_path: Path
) -> None:
    damaged = replace(artifact, weights={**artifact.weights, **changed})
    damaged.save(tmp_path / "plain")
    encode_artifact(damaged).save(tmp_path / "coded")
    for path in (tmp_path / "plain", tmp_path / "coded", tmp_path / "coded" / CODED_FILE):
        with pytest.raises(ArtifactError, match=message):
            load_artifact(path)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("f6.bias", torch.zeros(84, dtype=torch.complex64)),
        ("f6.bias", torch.zeros(84, dtype=torch.int64)),
        ("f6.bias", torch.zeros(84, dtype=torch.bool)),
        ("f6.bias", torch.zeros(84, dtype=torch.float8_e4m3fn)),
        ("f6.bias", torch.zeros(())),
        ("f6.bias", torch.zeros(0)),
        ("f6.bias", torch.zeros(84, 1)),
    ],
)
def test_weights_of_another_type_or_shape_are_refused(
    artifact: Artifact, name: str, values: Tensor, folder: Path
) -> None:
    Artifact(CONFIG, {**artifact.weights, name: values}).save(folder)
    with pytest.raises(ArtifactError, match=r"the weights do not fit lenet5: wanted f6\.bias"):
        _ = load_artifact(folder).model


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
@pytest.mark.parametrize("name", [WEIGHTS_FILE, CONFIG_FILE])
def test_weights_are_read_from_regular_files_alone(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises((ArtifactError, PathError), match=r"not a regular file|found none"):
        load_artifact(folder)
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    with pytest.raises((ArtifactError, PathError), match=r"not a regular file|found none"):
        load_artifact(folder)


@pytest.mark.parametrize("content", ["source: /data/digits\n", '{"source": "/data/digits", "seed": 3}\n#'])
def test_the_source_is_found_again_by_the_settings_beside_a_model(content: str, folder: Path) -> None:
    origin = replace(CONFIG.provenance.data, source="/data/digits")
    Artifact(replace(CONFIG, provenance=replace(CONFIG.provenance, data=origin)), load_artifact(folder).weights).save(
        folder
    )
    assert load_artifact(folder).config.provenance.data.source == "digits"
    (folder / "config.yaml").write_text(content + "notes: " + "a" * (1 << 15), encoding="utf-8")
    assert load_artifact(folder).config.provenance.data.source == "/data/digits"


def test_settings_of_megabytes_beside_a_model_are_not_read_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "config.yaml").write_text("- " + "a" * 3_000_000, encoding="utf-8")
    given: list[int] = []
    parse = yaml.parse

    def watch(text: str, **settings: Any) -> Any:
        given.append(len(text))
        return parse(text, **settings)

    monkeypatch.setattr(yaml, "parse", watch)
    assert load_artifact(folder).config.provenance.data.source == CONFIG.provenance.data.source
    assert given
    assert max(given) <= 1 << 14


def test_without_memory_loading_ends_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.\n"
        )

    def fail(*_: object) -> NoReturn:
        raise MemoryError

    for replacement in (refuse, fail):
        monkeypatch.setattr("safetensors.torch.load", replacement)
        with pytest.raises(OutOfMemoryError, match=r"wanted memory for .*, found too little left$"):
            load_artifact(folder)


@pytest.mark.parametrize("tokens", [258, 300])
def test_a_tokenizer_of_more_tokens_than_the_network_knows_is_refused(tokens: int, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["one two three two one"] * 5, 300)
    found = TextEncoder(tokenizer, 1).vocab_size
    assert found > 258
    config = replace(CONFIG, architecture="gru", input=TextSpec((9,), tokens), output=PAIR, options={"hidden": 4})
    text = Artifact(config, build_model(config).state_dict(), tokenizer)
    text.save(tmp_path / "plain")
    encode_artifact(text).save(tmp_path / "coded")
    for path in (tmp_path / "plain", tmp_path / "coded"):
        if tokens >= found:
            assert load_artifact(path).tokenizer == tokenizer
            continue
        with pytest.raises(ArtifactError, match=f"wanted at most the model's {tokens} tokens, found {found}"):
            load_artifact(path)


@pytest.mark.parametrize("value", ["x" * 10**5, "9" * 5000])
def test_what_a_library_quotes_of_a_file_is_cut(folder: Path, value: str) -> None:
    header = json.dumps({"fc1.weight": {"dtype": value, "shape": [1], "data_offsets": [0, 4]}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(4)
    (folder / WEIGHTS_FILE).write_bytes(content)
    change_config(folder, weights_sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(ArtifactError, match="is damaged") as caught:
        load_artifact(folder)
    assert len(str(caught.value)) < 1000

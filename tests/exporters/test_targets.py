"""A model of images, of texts and of series through every target: the same answers, and what the files say."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from falconet import RunResult, load_artifact
from falconet.artifact import Artifact
from falconet.exporters.inference import infer_batches, make_preprocess, read_tokenizer
from falconet.exporters.runtimes import Session, open_session
from falconet.exporters.targets import TARGETS
from falconet.spec import SeriesSpec
from tests.exporters.builders import (
    STEPS,
    ask_exported,
    ask_own,
    draw_raw,
    make_artifact,
    make_spec,
    open_export,
    walk,
)
from tests.exporters.conftest import Exporter

pytestmark = pytest.mark.slow
EXACT = [name for name, target in TARGETS.items() if target.exact]


every_export = pytest.mark.parametrize(
    ("kind", "target"), [("image", target) for target in TARGETS] + [("text", target) for target in EXACT]
)
_SOME = ("torch", "onnx", "openvino", "executorch")
some_targets = pytest.mark.parametrize("target", _SOME)


@pytest.fixture
def artifacts(trained: RunResult, text_artifact: Artifact) -> dict[str, Artifact]:
    return {"image": load_artifact(trained.out), "text": text_artifact}


def open_target(path: Path, target: str) -> Session:
    return open_session(TARGETS[target].runtime, path)


@every_export
def test_answers_are_the_models_own(kind: str, target: str, exported: Exporter, artifacts: dict[str, Artifact]) -> None:
    artifact, path = artifacts[kind], exported(kind, target)
    raw, session = draw_raw(artifact.config.input), open_target(path, target)
    prepare = make_preprocess(session.metadata, read_tokenizer(path, session.metadata))
    own = ask_own(artifact, raw)
    assert own.std(axis=0).max() > 0.02
    answers = np.concatenate(list(infer_batches(session, map(prepare, raw))))
    np.testing.assert_allclose(answers, own, rtol=0, atol=1e-4 if TARGETS[target].exact else 0.2)


@every_export
def test_files_say_what_they_are(kind: str, target: str, exported: Exporter, artifacts: dict[str, Artifact]) -> None:
    config = artifacts[kind].config
    metadata = open_target(exported(kind, target), target).metadata
    assert metadata.input == config.input
    assert metadata.architecture == config.architecture
    assert metadata.output == "probabilities"
    assert metadata.license == "apache-2.0"
    assert metadata.data == config.provenance.data.fingerprint
    assert metadata.versions["falconet"] == version("falconet")
    assert (metadata.tokenizer_sha256 is None) == (kind == "image")


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        *(("image", target) for target in EXACT),
        ("text", "onnx"),
        *(pytest.param("text", target, marks=pytest.mark.full) for target in EXACT if target != "onnx"),
    ],
)
def test_bare_networks_answer_logits(
    kind: str, target: str, exported: Exporter, artifacts: dict[str, Artifact]
) -> None:
    artifact, session = artifacts[kind], open_target(exported(kind, target, preprocessing=False), target)
    assert not session.metadata.preprocessing
    preprocess = artifact.preprocess
    inputs = preprocess.normalize(preprocess.prepare(draw_raw(artifact.config.input)))
    with torch.inference_mode():
        own = artifact.model(inputs).numpy()
    batch = session.metadata.batch or len(inputs)
    answers = [session.run(rows.numpy()) for rows in torch.split(inputs, batch)]
    np.testing.assert_allclose(np.concatenate(answers), own, rtol=1e-4, atol=1e-4)


def test_bare_networks_can_be_integers(exported: Exporter) -> None:
    session = open_target(exported("image", "onnx-int8", preprocessing=False), "onnx-int8")
    assert not session.metadata.preprocessing
    assert session.run(np.zeros((3, *session.metadata.input.shape), dtype=np.float32)).shape == (3, 10)


def test_onnx_names_what_goes_in_and_out(exported: Exporter) -> None:
    model = onnx.load(exported("image", "onnx"))
    onnx.checker.check_model(model, full_check=True)
    (image,), (answer,) = model.graph.input, model.graph.output
    names = [dimension.dim_param for dimension in image.type.tensor_type.shape.dim]
    assert (image.name, names) == ("image", ["batch", "height", "width", "channels"])
    assert answer.name == "probabilities"
    assert [(d.dim_param, d.dim_value) for d in answer.type.tensor_type.shape.dim] == [("batch", 0), ("", 10)]
    assert {"falconet", "labels", "license", "version"} <= {entry.key for entry in model.metadata_props}


def test_integers_are_smaller_and_have_a_scale_for_each_channel(exported: Exporter) -> None:
    small, full = exported("image", "onnx-int8"), exported("image", "onnx")
    assert small.stat().st_size < full.stat().st_size / 2
    model = onnx.load(small)
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in model.graph.node}
    weights = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    assert weights
    for tensor in weights:
        assert np.abs(onnx.numpy_helper.to_array(tensor).astype(int)).max() <= 64


@some_targets
def test_recurrent_networks_take_one_length(target: str, tmp_path: Path) -> None:
    # ExecuTorch unrolls a recurrent network step by step, which takes seconds a step.
    spec = make_spec("lstm", "series", shape=(3, 6))
    artifact = make_artifact("lstm", spec, hidden=8, layers=1, bidirectional=True)
    _, session = open_export(artifact, target, tmp_path)
    assert session.metadata.steps is None
    raw = draw_raw(artifact.config.input)
    np.testing.assert_allclose(ask_exported(artifact, session, raw), ask_own(artifact, raw), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "target"),
    [
        *(("transformer", {"width": 16, "layers": 1}, target) for target in _SOME),
        *(("resnet1d18", {"width": 4}, target) for target in ("torch", "onnx")),
        *(
            pytest.param("resnet1d18", {"width": 4}, target, marks=pytest.mark.full)
            for target in ("openvino", "executorch")
        ),
    ],
)
def test_others_take_any_length_and_leave_padding_out(
    name: str, options: dict[str, Any], target: str, tmp_path: Path
) -> None:
    artifact = make_artifact(name, make_spec(name, "series"), **options)
    _, session = open_export(artifact, target, tmp_path)
    assert session.metadata.steps is not None
    fewest, most = session.metadata.steps
    assert fewest < most == STEPS
    series = walk(np.random.default_rng(2), 3, 5)[None]
    for answer in (session.run(pad(series, length)) for length in (max(5, fewest), 11, 20, STEPS)):
        np.testing.assert_allclose(answer, ask_own(artifact, list(series)), rtol=0, atol=1e-4)


def pad(series: np.ndarray, length: int) -> np.ndarray:
    """Return a batch of series with NaN up to a length."""
    padded = np.full((*series.shape[:2], length), np.nan, dtype=np.float32)
    padded[..., : series.shape[2]] = series
    return padded


def test_padding_of_texts_changes_no_answer(exported: Exporter) -> None:
    session = open_target(exported("text", "onnx"), "onnx")
    tokens = np.array([[7, 30, 12]], dtype=np.int64)
    alone = session.run(tokens)
    np.testing.assert_allclose(session.run(np.pad(tokens, ((0, 0), (0, STEPS - 3)))), alone, rtol=0, atol=1e-5)
    assert np.abs(session.run(np.pad(tokens, ((0, 0), (0, 2)), constant_values=9)) - alone).max() > 1e-3


@pytest.mark.parametrize(
    ("fit", "target"),
    [
        *(("pad", target) for target in ("onnx", "openvino", "executorch")),
        ("resample", "onnx"),
        pytest.param("pad", "torch", marks=pytest.mark.full),
        *(pytest.param("resample", target, marks=pytest.mark.full) for target in _SOME if target != "onnx"),
    ],
)
def test_spectra_are_part_of_the_graph(fit: str, target: str, tmp_path: Path) -> None:
    spec = SeriesSpec((8, 12), (0.0,) * 8, (1.0,) * 8, length_mode=fit, rate=2000, bands=8)  # type: ignore[arg-type]
    artifact = make_artifact("transformer", spec, width=16, layers=1)
    _, session = open_export(artifact, target, tmp_path)
    raw = draw_raw(spec)
    np.testing.assert_allclose(ask_exported(artifact, session, raw), ask_own(artifact, raw), rtol=0, atol=1e-4)

"""Pictures of more than 8 bits a value, from their files to the answers of an exported model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import falconet
from falconet.artifact import load_artifact
from falconet.data.dataset import ImageArray
from falconet.data.files import open_files
from falconet.data.loader import load_inputs, measure_inputs, to_input
from falconet.data.preprocessing import ImagePreprocess, load_prepared
from falconet.data.sources import load_dataset
from falconet.errors import ConfigError, ExportError
from falconet.exporters.exporting import choose_preprocess
from falconet.exporters.inference import predict_exported
from falconet.exporters.parity import HeldOut, compare_with_export, draw_random_samples
from falconet.exporters.targets import find_target, is_installed
from falconet.spec import ImageSpec
from tests.exporters.builders import make_artifact, open_export

DEEP = ImageSpec((1, 64, 64), (0.0,), (1.0,), dtype="uint16", value_range=(0, 4095))
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def test_a_ramp_of_twelve_bits_keeps_its_levels(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(4):
            Image.fromarray(np.roll(RAMP, index)).save(tmp_path / name / f"{index}.tif")
    raw = open_files([str(tmp_path / "a" / "0.tif")], DEEP).read(0)
    assert len(np.unique(raw)) == 4096
    prepared = ImagePreprocess(DEEP).prepare([raw])
    torch.testing.assert_close(prepared[0, 0], torch.from_numpy(RAMP / np.float32(4095)), atol=0.5 / 65535, rtol=0)
    # So does what training reads, from a file and from memory.
    split = load_dataset(tmp_path).splits["train"]
    cached = load_inputs(split, DEEP)
    batch = cached.inputs.take(torch.arange(1))
    assert len(torch.unique(to_input(batch, ImagePreprocess(DEEP)))) == 4096
    held, _ = load_prepared(split.samples, ImagePreprocess(DEEP))
    assert held.dtype == torch.uint16
    assert len(torch.unique(held[0].int())) == 4096
    mean, deviation = measure_inputs(held, DEEP)
    assert mean[0] == pytest.approx(0.5, abs=1e-4)
    assert deviation[0] == pytest.approx((RAMP / 4095).std(), abs=1e-4)
    assert measure_inputs(cached.inputs, DEEP) == (mean, deviation)


def test_bytes_are_the_same_to_deep_models() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    preprocess = ImagePreprocess(DEEP)
    assert torch.equal(preprocess.prepare([levels]), preprocess.prepare([levels * np.uint16(257)]))


def test_sixteen_bits_want_a_range() -> None:
    with pytest.raises(ConfigError, match="value_range: wanted black and white of samples of 16 bits, found none"):
        ImageSpec((1, 4, 4), (0.0,), (1.0,), dtype="uint16")


def test_models_read_arrays_in_their_own_range() -> None:
    samples = ImageArray(np.full((1, 2, 2, 1), 200, dtype=np.uint8), np.array(["x[0]"]), (0, 255), "uint8")
    assert samples.read(0).max() == 200
    assert samples.scale((0, 4095), "uint16").read(0).max() == round(200 / 4095 * 65535)
    # Models of before have no range, and arrays of bytes are never scaled.
    assert samples.scale(None, "uint8").read(0).max() == 200
    plain = ImageArray(samples.images, samples.names)
    assert plain.scale((0, 4095), "uint16").read(0).max() == 200


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "triton", "openvino", "torch"])
def test_exports_of_deep_models_take_sixteen_bits(target: str, tmp_path: Path) -> None:
    if not is_installed(find_target(target)):
        pytest.skip("not installed")
    spec = ImageSpec((1, 28, 28), (0.4,), (0.3,), dtype="uint16", value_range=(0, 4095))
    artifact = make_artifact("lenet_relu", spec)
    _, session = open_export(artifact, target, tmp_path)
    assert session.metadata.input == spec
    made_up = draw_random_samples(artifact, "")
    assert int(made_up.samples.read(0).max()) > 255
    parity = compare_with_export(artifact, session, choose_preprocess(artifact, session.metadata, None), made_up)
    assert parity.max_abs_difference < 1e-4
    # Pictures of 8 bits are widened: the same gray levels.
    pixels = np.arange(2 * 40 * 40).astype(np.uint8).reshape(2, 40, 40, 1)
    small = ImageArray(pixels, np.array(["a", "b"]))
    prepare = choose_preprocess(artifact, session.metadata, None)
    assert compare_with_export(artifact, session, prepare, HeldOut(small, None, "bytes")).max_abs_difference < 1e-4
    if target == "triton":
        assert "TYPE_UINT16" in next(tmp_path.rglob("config.pbtxt")).read_text()


@pytest.mark.slow
def test_executorch_knows_no_sixteen_bits(tmp_path: Path) -> None:
    if not is_installed(find_target("executorch")):
        pytest.skip("not installed")
    with pytest.raises(ExportError, match="ExecuTorch takes no images of 16 bits"):
        open_export(make_artifact("lenet_relu", replace(DEEP, shape=(1, 28, 28))), "executorch", tmp_path)


@pytest.mark.slow
def test_a_deep_model_answers_alike_everywhere(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    # Both classes are one gray level in 8 bits: 16 to 31 of 4095 lie between 1 and 2 of 255.
    for name, level in (("low", 17), ("high", 30)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(40):
            pixels = generator.integers(level - 1, level + 2, (28, 28)).astype(np.uint16)
            pixels[0, index % 28] = 4095
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{index}.tif")
    result = falconet.train(tmp_path / "data", model="lenet_relu", epochs=2, out=tmp_path / "run")
    spec = load_artifact(result.out).config.input
    assert isinstance(spec, ImageSpec)
    assert (spec.dtype, spec.value_range) == ("uint16", (0, 4095))
    evaluated = falconet.evaluate(result.out, tmp_path / "data")
    assert evaluated.accuracy >= 0
    exported = falconet.export(result.out, "onnx", tmp_path / "deep.onnx")
    assert exported.parity.max_abs_difference < 1e-4
    Image.fromarray(np.full((20, 30, 3), 99, dtype=np.uint8)).save(tmp_path / "data" / "low" / "bytes.png")
    own = falconet.predict(result.out, tmp_path / "data")
    found = predict_exported("onnxruntime", tmp_path / "deep.onnx", tmp_path / "data")
    assert len(own.predictions) == len(found.predictions) == 81
    for one, other in zip(own.predictions, found.predictions, strict=True):
        assert one.file == other.file
        ours = {choice.label: choice.probability for choice in one.top}
        assert {choice.label: choice.probability for choice in other.top} == pytest.approx(ours, abs=1e-4)

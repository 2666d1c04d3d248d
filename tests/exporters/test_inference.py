"""`falconet predict --runtime`: the same answers as by the model, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from falconet import RunResult, cli
from falconet.artifact import Artifact
from falconet.errors import DataError, ExportError, FalconetError, PathError
from falconet.exporters.inference import predict_exported
from falconet.spec import SeriesSpec
from tests.exporters.builders import LABELS, make_artifact, open_export
from tests.exporters.conftest import Exporter

pytestmark = pytest.mark.slow
Capture = pytest.CaptureFixture[str]
Files = dict[str, Path]
CHECKED = """
import sys
from falconet import cli
code = cli.run(sys.argv[1:])
assert not {"torch", "torchvision"} & set(sys.modules), "torch was imported"
sys.exit(code)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Folders of files of each kind, one in each that cannot be read."""
    root = tmp_path_factory.mktemp("files")
    generator = np.random.default_rng(0)
    for kind in ("image", "text", "series"):
        (root / kind).mkdir()
    for name, size, mode in (("a", (8, 8), "L"), ("b", (40, 25), "RGB"), ("c", (3, 90), "RGBA"), ("d", (8, 8), "P")):
        pixels = Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8))
        pixels.convert(mode).save(root / "image" / f"{name}.png")
    (root / "image" / "broken.png").write_bytes(b"\x89PNG")
    for name, text in (("a", "plum and pear"), ("b", "iron " * 40), ("c", "Äpfel 苹果")):
        (root / "text" / f"{name}.txt").write_text(text, encoding="utf-8")
    (root / "text" / "broken.txt").write_bytes(b"\xff\xff\xff")
    for name, rate, steps in (("a", 8000, 400), ("b", 8000, 90), ("c", 16000, 1500)):
        write_wave(root / "series" / f"{name}.wav", rate, generator.integers(-9999, 9999, steps))
    (root / "series" / "broken.wav").write_bytes(b"RIFF")
    return {kind: root / kind for kind in ("image", "text", "series")}


def write_wave(path: Path, rate: int, values: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(values.astype("<i2").tobytes())


@pytest.fixture(scope="module")
def series_artifact() -> Artifact:
    spec = SeriesSpec((1, 400), (0.0,), (0.3,), rate=8000)
    return make_artifact("transformer", spec, width=16, layers=1)


def predict(*arguments: str) -> dict[str, Any]:
    """Predict in a process that must not import torch."""
    done = subprocess.run(
        [sys.executable, "-c", CHECKED, "predict", *arguments, "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def check_alike(found: dict[str, Any], own: dict[str, Any]) -> None:
    assert found["skipped"] == own["skipped"] != []
    assert len(found["predictions"]) == len(own["predictions"]) > 1
    for other, row in zip(found["predictions"], own["predictions"], strict=True):
        assert (other["file"], other["label"]) == (row["file"], row["label"])
        assert [item["label"] for item in other["top"]] == [item["label"] for item in row["top"]]
        probabilities = [item["probability"] for item in row["top"]]
        assert [item["probability"] for item in other["top"]] == pytest.approx(probabilities, rel=0, abs=1e-4)


def predict_own(capsys: Capture, *arguments: str) -> dict[str, Any]:
    assert cli.run(["predict", *arguments, "--json"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_images(trained: RunResult, exported: Exporter, files: Files, capsys: Capture) -> None:
    found = predict(str(exported("image", "onnx")), str(files["image"]), "--runtime", "onnx")
    check_alike(found, predict_own(capsys, str(trained.out), str(files["image"])))


def test_texts(text_artifact: Artifact, exported: Exporter, files: Files, capsys: Capture, tmp_path: Path) -> None:
    text_artifact.save(tmp_path)
    found = predict(str(exported("text", "onnx")), str(files["text"]), "--runtime", "onnx", "--top", "2")
    check_alike(found, predict_own(capsys, str(tmp_path), str(files["text"]), "--top", "2"))


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_recordings(series_artifact: Artifact, runtime: str, files: Files, capsys: Capture, tmp_path: Path) -> None:
    series_artifact.save(tmp_path / "model")
    path, _ = open_export(series_artifact, runtime, tmp_path)
    found = predict(str(path), str(files["series"]), "--runtime", runtime)
    check_alike(found, predict_own(capsys, str(tmp_path / "model"), str(files["series"])))


@pytest.mark.parametrize("kind", ["image", "text"])
def test_openvino(
    kind: str,
    trained: RunResult,
    text_artifact: Artifact,
    exported: Exporter,
    files: Files,
    capsys: Capture,
    tmp_path: Path,
) -> None:
    text_artifact.save(tmp_path)
    model = trained.out if kind == "image" else tmp_path
    found = predict(str(exported(kind, "openvino")), str(files[kind]), "--runtime", "openvino")
    check_alike(found, predict_own(capsys, str(model), str(files[kind])))


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_tables_and_what_the_name_tells_of_the_runtime(
    target: str, text_artifact: Artifact, exported: Exporter, capsys: Capture, tmp_path: Path
) -> None:
    text_artifact.save(tmp_path / "model")
    (tmp_path / "a.csv").write_text("note\nplum and pear\n \nzinc\n", encoding="utf-8")
    arguments = (str(tmp_path / "a.csv"), "--probabilities", "--set", "data.columns.text=note")
    found = predict(str(exported("text", target)), *arguments)
    check_alike(found, predict_own(capsys, str(tmp_path / "model"), *arguments))
    assert found["predictions"][0]["probabilities"].keys() == {*LABELS}
    assert cli.run(["predict", str(exported("text", target)), str(tmp_path / "a.csv"), "--tta"]) == 2
    assert "--tta: wanted a run's folder" in capsys.readouterr().err


def change_metadata(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Copy an ONNX file with other metadata."""
    model = onnx.load(source)
    (entry,) = [entry for entry in model.metadata_props if entry.key == "falconet"]
    record = json.loads(entry.value)
    change(record)
    entry.value = json.dumps(record)
    onnx.save(model, target)


def make_foreign(source: Path, target: Path) -> None:
    model = onnx.load(source)
    del model.metadata_props[:]
    onnx.save(model, target)


DAMAGES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "foreign": (make_foreign, "wanted a file that `falconet export` wrote, found one without its metadata"),
    "truncated": (lambda source, target: target.write_bytes(source.read_bytes()[:5000]), "onnxruntime cannot read it"),
    "empty": (lambda source, target: target.write_bytes(b""), "onnxruntime cannot read it"),
    "newer": (
        lambda source, target: change_metadata(source, target, lambda record: record.update(format_version=99)),
        "wanted format version 2 or lower, found 99: update falconet",
    ),
    "versionless": (
        lambda source, target: change_metadata(source, target, lambda record: record.pop("format_version")),
        "its metadata are damaged: 'format_version'",
    ),
    "without input": (
        lambda source, target: change_metadata(source, target, lambda record: record.pop("input")),
        "its metadata are damaged",
    ),
    "raw": (
        lambda source, target: change_metadata(source, target, lambda record: record.update(output="logits")),
        "wanted a file that takes raw samples, found a bare network; export without --no-preprocessing",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_files_of_no_use_are_one_line(
    damage: str, exported: Exporter, files: Files, capsys: Capture, tmp_path: Path
) -> None:
    make, message = DAMAGES[damage]
    path = tmp_path / "model.onnx"
    make(exported("image", "onnx"), path)
    assert cli.run(["predict", str(path), str(files["image"]), "--runtime", "onnx"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert str(path) in err
    assert err.count("\n") == 1


def test_a_bare_network_is_refused(exported: Exporter, files: Files) -> None:
    with pytest.raises(ExportError, match="found a bare network"):
        predict_exported("onnxruntime", exported("image", "onnx", preprocessing=False), [files["image"]])


def test_the_tokenizer_must_be_the_files_own(exported: Exporter, files: Files, tmp_path: Path) -> None:
    source, path = exported("text", "onnx"), tmp_path / "model.onnx"
    path.write_bytes(source.read_bytes())
    with pytest.raises(PathError, match=r"wanted the tokenizer that was exported beside model\.onnx, found none"):
        predict_exported("onnxruntime", path, [files["text"]])
    beside = source.with_name("model.tokenizer.json").read_bytes()
    (tmp_path / "model.tokenizer.json").write_bytes(beside + b" ")
    with pytest.raises(ExportError, match=r"model\.tokenizer\.json is altered"):
        predict_exported("onnxruntime", path, [files["text"]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--runtime", "onx"), "unknown runtime 'onx': did you mean onnx?"),
        (("--runtime", "onnx", "--top", "0"), "--top"),
    ],
)
def test_wrong_options(
    arguments: tuple[str, ...], message: str, exported: Exporter, files: Files, capsys: Capture
) -> None:
    assert cli.run(["predict", str(exported("image", "onnx")), str(files["image"]), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_paths_that_are_no_files(exported: Exporter, files: Files, tmp_path: Path) -> None:
    with pytest.raises(PathError, match="no such file"):
        predict_exported("onnxruntime", tmp_path / "none.onnx", [files["image"]])
    with pytest.raises(PathError, match="wanted a file that `falconet export` wrote, found a folder"):
        predict_exported("onnxruntime", tmp_path, [files["image"]])
    with pytest.raises(FalconetError, match="no such file or folder"):
        predict_exported("onnxruntime", exported("image", "onnx"), [tmp_path / "none.png"])
    with pytest.raises(DataError, match=r"the sample cannot be read: .*broken"):
        predict_exported("onnxruntime", exported("image", "onnx"), [files["image"] / "broken.png"])

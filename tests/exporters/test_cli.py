"""`falconet export`: what it prints, and its mistakes in one line."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from falconet import RunResult, cli, load_artifact
from falconet.artifact import Artifact, encode_artifact
from falconet.cli.exporting import print_export
from falconet.errors import ExportError
from falconet.exporters.exporting import Export, export
from falconet.exporters.parity import Parity
from falconet.exporters.targets import TARGETS
from falconet.latency import SpeedRatio

Capture = pytest.CaptureFixture[str]


def fail(capsys: Capture, code: int, *arguments: str) -> str:
    """Run a verb that fails, and return its one line."""
    assert cli.run(list(arguments)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


@pytest.mark.slow
def test_json(trained: RunResult, capsys: Capture, tmp_path: Path) -> None:
    out = tmp_path / "model.pt2"
    assert cli.run(["export", str(trained.out), "--to", "torch", "--out", str(out), "--json"]) == 0
    text = capsys.readouterr().out
    assert text.count("\n") == 1
    facts = json.loads(text)
    assert {"path", "target", "bytes", "max_abs_difference", "accuracy_drop", "latency_ms"} <= facts.keys()
    assert (facts["path"], facts["target"], facts["bytes"]) == (str(out), "torch", out.stat().st_size)
    assert facts["max_abs_difference"] < 1e-4
    assert facts["accuracy_drop"] == 0
    assert facts["latency_ms"] > 0
    low, high = facts["speedup_ci"]
    assert low <= facts["speedup"] <= high
    assert facts["baseline_speedup"] is facts["baseline_speedup_ci"] is None


PARITY = Parity(90, "samples", 1e-6, 1.0)
EXPORT = Export("m.onnx", "onnx-int8", 9, {"m.onnx": 9}, None, "onnxruntime", PARITY, 0.5, 1.0, 0.4)


@pytest.mark.parametrize(
    ("speed", "baseline", "lines"),
    [
        (
            SpeedRatio(2.0, 1.8, 2.2),
            SpeedRatio(0.8, 0.75, 0.875),
            [
                "speed: 2.00 times as fast as the model itself (95%: 1.80 to 2.20)",
                "fp32 0.400 ms; int8: SLOWER: 1.25 times as long (95%: 1.14 to 1.33): on this "
                "machine, --to onnx answers sooner",
            ],
        ),
        (
            SpeedRatio(0.8, 0.7, 1.1),
            SpeedRatio(0.9, 0.8, 1.0),
            [
                "speed: no measurable difference (95%: 0.70 to 1.10 times as fast as the model itself)",
                "fp32 0.400 ms; int8: no measurable difference (95%: 0.80 to 1.00 times as fast)",
            ],
        ),
    ],
)
def test_speed_is_told_with_its_interval(
    speed: SpeedRatio, baseline: SpeedRatio, lines: list[str], capsys: Capture
) -> None:
    result = replace(EXPORT, speed=speed, baseline_speed=baseline)
    print_export(result)
    assert lines == capsys.readouterr().out.splitlines()[-2:]
    facts = result.facts()
    assert (facts["speedup"], facts["speedup_ci"]) == (speed.times, [speed.low, speed.high])
    assert (facts["baseline_speedup"], facts["baseline_speedup_ci"]) == (baseline.times, [baseline.low, baseline.high])
    assert (facts["latency_ms"], facts["model_latency_ms"], facts["baseline_latency_ms"]) == (0.5, 1.0, 0.4)


@pytest.mark.slow
def test_text(trained: RunResult, capsys: Capture, tmp_path: Path) -> None:
    out = tmp_path / "model.pt2"
    assert cli.run(["export", str(trained.out), "--to", "torch", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert f"{out.stat().st_size:,} bytes" in text.replace("\n", " ")
    assert "largest difference of a probability" in text
    assert "latency:" in text


@pytest.mark.slow
def test_an_export_that_is_larger_than_the_compressed_model_says_so(
    trained: RunResult, capsys: Capture, tmp_path: Path
) -> None:
    whole = load_artifact(trained.out)
    # One bit a weight, as a compressed model may have them.
    weights = {name: tensor.abs().mean() * tensor.sign() for name, tensor in whole.weights.items()}
    coded = encode_artifact(replace(whole, weights=weights)).coded
    assert coded is not None
    model, out = tmp_path / "model.fnet", tmp_path / "m.onnx"
    model.write_bytes(coded)
    assert cli.run(["export", str(model), "--to", "onnx", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert out.stat().st_size > 8 * len(coded)
    assert f"larger than the compressed model ({len(coded):,} bytes): this format holds each weight in 32 bits" in said
    assert "--to onnx-int8 takes 8" in said


@pytest.mark.parametrize(
    ("target", "coded", "words"),
    [
        ("onnx", 999, "holds each weight in 32 bits; --to onnx-int8 takes 8"),
        ("onnx-int8", 999, "holds each weight in 8 bits, zeros too; only model.fnet keeps the coded size"),
        ("onnx", 1000, ""),
        ("onnx", None, ""),
    ],
)
def test_what_is_larger_than_a_compressed_model(target: str, coded: int | None, words: str) -> None:
    parity = Parity(9, "samples", 0.0, 1.0)
    grown = Export("m", target, 1000, {"m": 1000}, coded, "onnxruntime", parity, 1.0, 1.0, None).grown
    assert words in grown
    assert bool(grown) is bool(words)


MISTAKES = [
    (("--to", "onx", "--out", "m.onnx"), "unknown target 'onx': did you mean onnx or onnx-int8?"),
    (("--to", "torch", "--out", "m.onnx"), "--out: wanted a file name ending in .pt2, found m.onnx"),
    (("--to", "torch", "--out", "m"), "--out: wanted a file name ending in .pt2, found m"),
    (("--to", "torch", "--out", "m.pt2", "--max-drop", "-1"), "--max-drop: wanted points of accuracy from 0 to 100"),
    (("--to", "torch", "--out", "m.pt2", "--max-drop", "nan"), "--max-drop: wanted points of accuracy from 0 to 100"),
    (("--to", "torch", "--out", "m.pt2", "--source", "digitz"), "unknown source 'digitz': did you mean digits?"),
    (("--to", "torch"), "Missing option"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_wrong_options(
    arguments: tuple[str, ...],
    message: str,
    trained: RunResult,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in fail(capsys, 2, "export", str(trained.out), *arguments)
    assert list(tmp_path.iterdir()) == []


def test_paths_that_cannot_be_written(trained: RunResult, capsys: Capture, tmp_path: Path) -> None:
    folder, file = tmp_path / "folder.pt2", tmp_path / "file"
    folder.mkdir()
    file.touch()
    call = ("export", str(trained.out), "--out")
    assert "wanted a file name ending in .pt2, found the folder" in fail(capsys, 2, *call, str(folder), "--to", "torch")
    assert "wanted a folder, found" in fail(capsys, 2, *call, str(file), "--to", "triton")
    assert "cannot write" in fail(capsys, 1, *call, str(file / "model.pt2"), "--to", "torch")
    assert "cannot write" in fail(capsys, 1, *call, str(file / "repository"), "--to", "triton")


def test_a_folder_that_may_not_be_written_to(
    trained: RunResult, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)  # Root may write everywhere.
    out = str(tmp_path / "new" / "model.pt2")
    assert "is no folder that may be written to" in fail(
        capsys, 1, "export", str(trained.out), "--to", "torch", "--out", out
    )


@pytest.mark.parametrize("target", [name for name, entry in TARGETS.items() if entry.extra])
def test_a_missing_extra_is_named(
    target: str, trained: RunResult, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("falconet.exporters.targets.find_spec", lambda name: None)
    out = str(tmp_path / f"model{TARGETS[target].suffix}")
    err = fail(capsys, 1, "export", str(trained.out), "--to", target, "--out", out)
    assert f"exporting to {target} needs an optional dependency: pip install 'falconet[" in err
    assert f"falconet[{TARGETS[target].extra}]" in err


def test_folders_that_are_no_artifact(trained: RunResult, capsys: Capture, tmp_path: Path) -> None:
    rest = ("--to", "torch", "--out", str(tmp_path / "model.pt2"))
    assert "no such folder" in fail(capsys, 2, "export", str(tmp_path / "none"), *rest)
    newer = tmp_path / "newer"
    shutil.copytree(trained.out, newer)
    config = newer / "config.json"
    record = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**record, "format_version": 99}), encoding="utf-8")
    assert "wanted format version 2 or lower, found 99: update falconet" in fail(capsys, 1, "export", str(newer), *rest)
    assert not (tmp_path / "model.pt2").exists()


class Fickle(nn.Module):
    """Goes one way or another by its input, in Python."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else x * 2


class Fixed(nn.Module):
    """Writes the size of the batch down, as traced graphs must not."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1)


class Bessel(nn.Module):
    """Computes what ONNX has no operator for."""

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = torch.special.bessel_j0(x)
        return answer


def put_in(artifact: Artifact, layer: nn.Module) -> Artifact:
    """Let a layer follow on the network of a model."""
    vars(artifact)["model"] = nn.Sequential(artifact.model, nn.Sequential(nn.Identity(), layer)).eval()
    return artifact


@pytest.mark.parametrize("layer", [Fickle(), Fixed()])
def test_a_layer_that_cannot_be_traced_is_named(
    layer: nn.Module, trained: RunResult, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    artifact = put_in(load_artifact(trained.out), layer)
    monkeypatch.setattr("falconet.exporters.exporting.open_artifact", lambda model: artifact)
    out = str(tmp_path / "model.pt2")
    assert cli.run(["export", str(trained.out), "--to", "torch", "--out", out]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"falconet: the layer 1.1 ({type(layer).__name__}) cannot be exported: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", pytest.param("openvino", marks=pytest.mark.full), "executorch"])
def test_a_layer_that_a_format_does_not_know_is_named(target: str, trained: RunResult, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"the layer 1\.1 \(Bessel\) cannot be exported: .*bessel_j0"):
        export(put_in(load_artifact(trained.out), Bessel()), target, tmp_path / f"model{TARGETS[target].suffix}")
    assert list(tmp_path.iterdir()) == []

"""Runtimes beside each other, and where their times are told."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from falconet import Artifact, Latency, RunResult, load_artifact
from falconet.exporters import timing
from falconet.exporters.metadata import Metadata
from falconet.exporters.runtimes import Session, open_session
from falconet.exporters.targets import Runtime
from falconet.exporters.timing import find_fastest, open_exported, time_runtimes, time_together, write_network
from falconet.latency import compare_latencies
from falconet.report import render_card, render_html
from tests.compression.test_resuming import make_hollow
from tests.exporters.builders import ask_own, open_export

LATENCIES: dict[Runtime, Latency] = {"torch": Latency(2.0, 3.0, 4.0, 10), "onnxruntime": Latency(0.5, 0.6, 0.7, 10)}


@pytest.mark.slow
def test_every_runtime_is_timed_in_turns(trained: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "write_network", write_network)
    found = time_together([load_artifact(trained.out)] * 2)
    assert [list(latencies) for latencies in found] == [["torch", "onnxruntime", "openvino"]] * 2
    every = [latency for latencies in found for latency in latencies.values()]
    assert len({(latency.calls, len(latency.turns or ())) for latency in every}) == 1
    assert all(0 < latency.p50 <= latency.p95 <= latency.p99 for latency in every)
    assert every[0].calls >= 10
    assert compare_latencies(found[0]["torch"], found[1]["onnxruntime"]) is not None


def test_the_bare_network_is_what_is_timed(trained: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "write_network", write_network)
    artifact = load_artifact(trained.out)
    wanted = artifact.model(artifact.make_blank()).detach().numpy()
    calls = open_exported(artifact, tmp_path / "network")
    assert list(calls) == ["onnxruntime", "openvino"]
    for call in calls.values():
        np.testing.assert_allclose(np.asarray(call()), wanted, atol=1e-4)


class Unanswering(nn.Module):
    """What no format knows: a layer that leaves torch."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.from_numpy(inputs.numpy().mean(axis=(1, 2, 3), keepdims=True)[:, :, 0, 0].repeat(10, axis=1))


def test_a_network_that_onnx_cannot_hold_is_timed_in_torch(
    trained: RunResult, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(timing, "write_network", write_network)
    artifact = load_artifact(trained.out)
    monkeypatch.setitem(vars(artifact), "model", Unanswering())
    assert list(time_runtimes(artifact)) == ["torch"]
    assert "lenet_relu is timed in torch alone: the network (Unanswering) cannot be exported" in caplog.text


def test_a_runtime_that_stumbles_is_left_out(
    trained: RunResult, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stumble(batch: np.ndarray) -> np.ndarray:
        raise RuntimeError("no such operator")

    def open_one(runtime: Runtime, path: Path, *, threads: int) -> Session:
        metadata = make_hollow(Metadata, input=artifact.config.input, output_spec=artifact.config.output)
        return Session(metadata, stumble if runtime == "onnxruntime" else lambda batch: np.zeros((1, 10)))

    artifact = load_artifact(trained.out)
    monkeypatch.setattr(timing, "write_network", lambda artifact, path: None)
    monkeypatch.setattr(timing, "open_session", open_one)
    assert list(time_runtimes(artifact)) == ["torch", "openvino"]
    assert "lenet_relu is not timed in onnxruntime: the exported file cannot answer: no such operator" in caplog.text


@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyError("logits"), MemoryError()])
def test_errors_that_speak_of_no_format_come_through(
    trained: RunResult, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(artifact: Artifact, path: Path) -> None:
        raise error

    monkeypatch.setattr(timing, "write_network", fail)
    with pytest.raises(type(error)):
        time_runtimes(load_artifact(trained.out))


def test_reports_call_what_is_tested_here(trained: RunResult, caplog: pytest.LogCaptureFixture) -> None:
    assert list(time_runtimes(load_artifact(trained.out))) == ["torch"]
    assert "the tests export no networks for their reports" in caplog.text


@pytest.mark.slow
def test_reports_tell_the_fastest(trained: RunResult) -> None:
    assert find_fastest(LATENCIES) == "onnxruntime"
    report = dataclasses.replace(trained.report, latencies=LATENCIES, timed=True)
    assert report.latency == LATENCIES["torch"]
    page = render_html([report], "two runtimes")
    assert '<th scope="row">onnxruntime</th><td>0.500 ms</td><td>0.600 ms</td><td>0.700 ms</td>' in page
    assert "| latency | 0.50 ms in onnxruntime, 2.00 ms in torch for one sample" in render_card(report)


@pytest.mark.slow
def test_openvino_reads_onnx_files_of_raw_images_alike(trained: RunResult, tmp_path: Path) -> None:
    artifact = load_artifact(trained.out)
    path, session = open_export(artifact, "onnx", tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (1, 150, 90, 3), dtype=np.uint8)
    other = open_session("openvino", path)
    np.testing.assert_allclose(other.run(image), session.run(image), atol=1e-5)
    np.testing.assert_allclose(other.run(image), ask_own(artifact, list(image)), atol=1e-4)

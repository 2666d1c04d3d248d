"""Runtimes beside each other, and where their times are told."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from falconet import Latency, RunResult, load_artifact
from falconet.exporters import timing
from falconet.exporters.runtimes import open_session
from falconet.exporters.targets import Runtime
from falconet.exporters.timing import find_fastest, time_exported, time_together
from falconet.report import render_card, render_html
from tests.exporters.builders import ask_own, open_export

LATENCIES: dict[Runtime, Latency] = {"torch": Latency(2.0, 3.0, 4.0, 10), "onnxruntime": Latency(0.5, 0.6, 0.7, 10)}


@pytest.mark.slow
def test_every_runtime_is_timed(trained: RunResult) -> None:
    found = time_exported([load_artifact(trained.out)] * 2)
    assert list(found) == ["onnxruntime", "openvino"]
    for one, other in found.values():
        assert 0 < one.p50 <= one.p95 <= one.p99
        assert one.calls == other.calls >= 10


def test_networks_are_timed_together(trained: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = [Latency(1.0, 1.0, 1.0, 10), Latency(2.0, 2.0, 2.0, 10)]
    monkeypatch.setattr(timing, "time_exported", lambda artifacts: {"onnxruntime": pair})
    found = time_together([load_artifact(trained.out)] * 2)
    assert [list(latencies) for latencies in found] == [["torch", "onnxruntime"]] * 2
    assert [latencies["onnxruntime"] for latencies in found] == pair


def test_a_runtime_that_stumbles_is_left_out(trained: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*arguments: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(timing, "write_network", stumble)
    assert time_exported([load_artifact(trained.out)]) == {}


@pytest.mark.slow
def test_reports_tell_the_fastest(trained: RunResult) -> None:
    assert find_fastest(LATENCIES) == "onnxruntime"
    report = dataclasses.replace(trained.report, latencies=LATENCIES)
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
    np.testing.assert_allclose(other.ask(image), session.ask(image), atol=1e-5)
    np.testing.assert_allclose(other.ask(image), ask_own(artifact, list(image)), atol=1e-4)

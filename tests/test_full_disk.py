"""Whole runs whose folder is on a disk that fills up, or that cannot be written to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from falconet import load_artifact
from falconet.training.checkpoints import load_checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
RUN = ["digits", "--model", "lenet300_100", "--epochs", "4"]


def train(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.plain", "train", *RUN, "--out", str(out), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300, check=False)


def mount(folder: Path, options: str) -> None:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system on which a model and two checkpoints of 4.3 MB find room, a third one does not."""
    if sys.platform != "linux":
        pytest.skip("tmpfs is Linux's")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount(folder, "size=12m")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def told(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what a run said of errors; the rest says how far it came."""
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("falconet:")]


def test_a_disk_that_fills_up_in_training(tmp_path: Path, disk: Path) -> None:
    whole, run = tmp_path / "whole", disk / "run"
    assert train(whole).returncode == 0
    assert train(run, "--seed", "7", "--epochs", "1").returncode == 0
    old = (run / "model.safetensors").read_bytes()
    full = train(run, "--overwrite")
    assert full.returncode == 1
    (line,) = told(full)
    assert line.startswith(f"falconet: cannot write {run / 'checkpoint' / 'epoch-000003'}")
    assert line.endswith("No space left on device; choose another place or make room")
    assert not list(run.rglob("*.partial"))
    assert (run / "model.safetensors").read_bytes() == old
    assert load_artifact(run).config.provenance.seed == 7
    checkpoint = load_checkpoint(run / "checkpoint", pytest.fail)
    assert checkpoint is not None
    assert len(checkpoint.facts["history"]) == 2
    subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], check=True)
    resumed = train(run, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "goes on after epoch 2 of 4" in resumed.stderr
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    done = train(disk / "run")
    assert done.returncode == 1
    (line,) = told(done)
    assert line == f"falconet: cannot write {disk / 'run'}: Read-only file system; choose another place or make room"
    assert "epoch" not in done.stderr

"""Runs that are killed at random moments end with the weights of one that never was."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = '''
"""Prints what became of runs that are killed; children are forked, so that no time goes into imports."""
import hashlib, json, os, random, signal, sys, time
from pathlib import Path

import pytest, torch
from falconet.model import train
from tests.conftest import refuse_exports, sketch_pictures

for stop in (refuse_exports, sketch_pictures):
    stop(pytest.MonkeyPatch())

SETTINGS = {
    "model": {"name": "lenet_relu", "input_size": 28},
    "augmentation": "strong",
    "training": {"ema_decay": 0.9, "precision": "bf16", "batch_size": 48, "checkpoint_seconds": 0.02},
}


def start(folder):
    child = os.fork()
    if child:
        return child
    try:
        train("digits", epochs=3, settings=SETTINGS, out=folder, if_exists="resume")
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)


def mid_epoch(folder):
    return {path for path in (folder / "checkpoint").glob("*.json") if not path.stem.endswith(".000000000")}


def digest(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


root, kills, generator = Path(sys.argv[1]), int(sys.argv[2]), random.Random(0)
began = time.monotonic()
assert os.waitpid(start(root / "whole"), 0)[1] == 0
length, expected = time.monotonic() - began, digest(root / "whole")
killed, resumed, places, number, weights = 0, 0, [], 0, []
while killed < kills or not weights:
    folder = root / str(number)
    resumed += (folder / "config.yaml").exists()
    # Every second one dies soon after a checkpoint in mid-epoch, which a clock alone may miss: training may be the
    # lesser part of a run. One that has no epoch left to go on with ends.
    awaits, known = killed % 2 == 0, mid_epoch(folder)
    child = start(folder)
    deadline = float("inf") if awaits else time.monotonic() + generator.uniform(0.05, 0.9) * length
    status = (0, 0)
    while status == (0, 0) and (killed >= kills or time.monotonic() < deadline):
        status = os.waitpid(child, os.WNOHANG)
        if awaits and mid_epoch(folder) - known:
            awaits, deadline = False, time.monotonic() + generator.uniform(0, 0.1)
        time.sleep(0.01)
    if status == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        killed += 1
        places.append(sorted(path.stem for path in (folder / "checkpoint").glob("*.json"))[-1:])
        continue
    assert status[1] == 0, f"run {number} failed"
    weights.append(digest(folder))
    number += 1
print(json.dumps({"killed": killed, "resumed": resumed, "places": places, "equal": [w == expected for w in weights]}))
'''


def run_killed(folder: Path, kills: int) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(folder), str(kills)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.slow
@pytest.mark.parametrize("kills", [6, pytest.param(20, marks=pytest.mark.full)])
def test_killed_runs_end_with_the_same_weights(kills: int, tmp_path: Path) -> None:
    result = run_killed(tmp_path, kills)
    assert result["killed"] == kills
    assert all(result["equal"])
    assert result["resumed"], "or nothing was gone on with"
    stems = set(itertools.chain(*result["places"]))
    assert any(not stem.endswith(".000000000") for stem in stems), "or none was killed in mid-epoch"

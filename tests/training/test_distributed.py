"""Several processes that train together, as torchrun starts them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from falconet import load_artifact
from falconet.errors import ConfigError
from falconet.preparation import split_batch
from falconet.training.distributed import SINGLE_PROCESS, ProcessGroup, init_process_group, is_lost

FIT = """
import json, sys, torch
# Networks are trained one after the other, since what takes longest is starting processes.
from falconet import Callback, ImageSpec, TrainConfig, create_model, fit, load_dataset
from falconet.data.loader import Loader, load_inputs
from falconet.data.preprocessing import create_preprocess
from falconet.training.distributed import init_process_group

class Losses(Callback):
    def __init__(self):
        self.losses = []
    def on_step(self, step, loss):
        self.losses.append(loss)

def make(name):
    if name != "norms":
        return create_model(name, in_channels=1, num_classes=10)
    first = torch.nn.Conv2d(1, 8, 5, stride=3, bias=False), torch.nn.BatchNorm2d(8), torch.nn.ReLU()
    second = torch.nn.Conv2d(8, 16, 3, stride=2, bias=False), torch.nn.BatchNorm2d(16, affine=False), torch.nn.ReLU()
    return torch.nn.Sequential(*first, *second, torch.nn.Flatten(), torch.nn.Linear(144, 10))

spec = ImageSpec((1, 28, 28), (0.3,), (0.3,))
dataset, preprocess = load_dataset("digits"), create_preprocess(spec)

def train(process_group, batch, name, precision, decay):
    loaders = [
        Loader(part.inputs, torch.from_numpy(part.split.labels), preprocess, size // process_group.world_size,
               sampler=sampler, rank=process_group.rank, world_size=process_group.world_size)
        for part, size, sampler in zip(parts, (batch, 256), ("shuffle", "sequential"))
    ]
    torch.manual_seed(process_group.rank)  # the leader's first weights are those of all
    model, watcher = make(name), Losses()
    before = [type(module) for module in model.modules()]
    config = TrainConfig(epochs=2, batch_size=batch, precision=precision, ema_decay=decay or None)
    result = fit(model, *loaders, config, callbacks=[watcher], process_group=process_group)
    rows = [(row.train_loss, row.train_accuracy, row.val_loss, row.val_accuracy) for row in result.history]
    weights = [float(value.double().sum()) for value in model.state_dict().values()]
    everyone = [process_group.broadcast(weights), weights]
    assert everyone[0] == everyone[1]
    assert before == [type(module) for module in model.modules()]
    return {
        "size": process_group.world_size, "losses": watcher.losses, "rows": rows,
        "state": {key: value.flatten().tolist() for key, value in model.state_dict().items()},
    }

with init_process_group() as process_group:
    parts = [load_inputs(dataset.splits[name], spec) for name in ("train", "val")]
    found = [train(process_group, *settings) for settings in json.loads(sys.argv[1])]
    if process_group.is_main:
        print(json.dumps(found), flush=True)
"""


def torchrun(processes: int, *command: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run a program in so many processes, without a word of torchrun's own on standard output."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [*launcher, *command] if processes > 1 else [sys.executable, *command]
    root = Path(__file__).parents[2]
    return subprocess.run(
        started, cwd=root, capture_output=True, text=True, env=environment, timeout=timeout, check=False
    )


Settings = tuple[int, str, str, float]
"""Of FIT: the batch's size, the network, the precision and what the average of the weights keeps."""
FITS: tuple[Settings, ...] = ((62, "lenet300_100", "fp32", 0), (62, "norms", "fp32", 0), (62, "norms", "bf16", 0))
MORE: tuple[Settings, ...] = ((64, "lenet300_100", "fp32", 0), (64, "norms", "fp32", 0.9))
Fits = Callable[[Settings], tuple[dict[str, Any], dict[str, Any]]]


@pytest.fixture(scope="module")
def fit_in_one_and_two(tmp_path_factory: pytest.TempPathFactory) -> Fits:
    """Return a function that tells what FIT comes to in one process and in two, which it starts once for all of CI."""
    script = tmp_path_factory.mktemp("fit") / "fit.py"
    script.write_text(FIT)

    @cache
    def fit_all(several: tuple[Settings, ...]) -> list[list[dict[str, Any]]]:
        done = [torchrun(count, str(script), json.dumps(several)) for count in (1, 2)]
        for one in done:
            assert one.returncode == 0, one.stderr
        return [json.loads(one.stdout) for one in done]

    def fit(settings: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
        several = FITS if settings in FITS else MORE
        one, two = (found[several.index(settings)] for found in fit_all(several))
        assert (one["size"], two["size"]) == (1, 2)
        assert len(one["losses"]) == len(two["losses"]) > 20
        return one, two

    return fit


@pytest.mark.parametrize("settings", [FITS[0], pytest.param(MORE[0], marks=pytest.mark.full)])
@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(fit_in_one_and_two: Fits, settings: Settings) -> None:
    one, two = fit_in_one_and_two(settings)
    assert two["losses"][:20] == pytest.approx(one["losses"][:20], abs=1e-5)
    for mine, theirs in zip(one["rows"], two["rows"], strict=True):
        assert theirs == pytest.approx(mine, abs=1e-4)


# Parts of a batch of 62 differ by a sample. What the sums do to a network is tested in test_synchronization.py.
@pytest.mark.slow
@pytest.mark.parametrize("settings", [FITS[1], pytest.param(MORE[1], marks=pytest.mark.full)])
def test_batch_normalization_sees_all_parts_of_a_batch(fit_in_one_and_two: Fits, settings: Settings) -> None:
    one, two = fit_in_one_and_two(settings)
    assert two["losses"][:20] == pytest.approx(one["losses"][:20], abs=1e-5)
    assert "1.running_var" in one["state"]
    for name, values in one["state"].items():
        assert two["state"][name] == pytest.approx(values, abs=1e-3), name


@pytest.mark.slow
def test_batch_normalization_in_bfloat16(fit_in_one_and_two: Fits) -> None:
    one, two = fit_in_one_and_two(FITS[2])
    assert two["losses"][:5] == pytest.approx(one["losses"][:5], abs=0.1)
    assert two["rows"][-1][0] == pytest.approx(one["rows"][-1][0], abs=0.1)


def train(processes: int, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    # Without the dashes, torchrun takes --log for one of its own options.
    dashes = ["--"] if processes > 1 else []
    module = ["-m", *dashes, "tests.plain", "train", "digits", "--model", "lenet_relu", "--out", str(out), *more]
    return torchrun(processes, *module)


@pytest.mark.slow
def test_the_command_line_trains_in_two_processes_and_goes_on_in_one(tmp_path: Path) -> None:
    short = train(2, tmp_path / "run", "--epochs", "3", "--json", "--log", "tensorboard")
    assert short.returncode == 0, short.stderr
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1  # The first process alone writes.
    result = json.loads(short.stdout)  # one object, though two processes ran
    assert result["test"]["accuracy"] > 0.8
    assert load_artifact(tmp_path / "run").config.provenance.epochs == 3
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 4
    for name in ("model.safetensors", "config.json", "metrics.json"):
        (tmp_path / "run" / name).unlink()
    newest = max((tmp_path / "run" / "checkpoint").glob("*.json"))
    newest.unlink()
    newest.with_suffix(".safetensors").unlink()
    alone = train(1, tmp_path / "run", "--epochs", "3", "--resume", "--json")
    assert alone.returncode == 0, alone.stderr
    assert "goes on after epoch 2 of 3" in alone.stderr
    assert json.loads(alone.stdout)["test"]["accuracy"] == pytest.approx(result["test"]["accuracy"], abs=0.03)


RECORDING = """
import os, runpy, sys
from pathlib import Path
sys.path.insert(0, os.getcwd())
from falconet.training import loop
solve = loop.solve
def record(*arguments, groups=None, **named):
    number = "none" if groups is None else f"{len(groups.unique())} groups of {len(groups)}"
    Path(__file__).with_name("rank" + os.environ.get("RANK", "")).write_text(number)
    return solve(*arguments, groups=groups, **named)
loop.solve = record
runpy.run_module("tests.plain", run_name="__main__")
"""
"""The command line, which writes down what groups a linear probe was solved with."""


@pytest.mark.slow
def test_groups_share_a_fold_of_the_linear_probe_in_two_processes_too(tmp_path: Path) -> None:
    rows = [f"word{person} {turn},{'ab'[person % 2]},{person}" for person in range(24) for turn in range(8)]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label,person", *rows]))
    (tmp_path / "recording.py").write_text(RECORDING)
    options = ["--model", "linear", "--epochs", "1", "--set", "data.columns.group=person"]
    for processes in (1, 2):
        out = ["--set", "training.linear_probe=logistic", "--out", str(tmp_path / str(processes))]
        dashes = ["--"] if processes > 1 else []
        done = torchrun(
            processes, *dashes, str(tmp_path / "recording.py"), "train", str(tmp_path / "texts.csv"), *options, *out
        )
        assert done.returncode == 0, done.stderr
    alone, first, second = ((tmp_path / f"rank{rank}").read_text() for rank in ("", "0", "1"))
    assert alone == first == second
    groups, samples = map(int, alone.split(" groups of "))
    assert samples == 8 * groups


@pytest.mark.slow
def test_a_killed_process_ends_the_others_with_a_line(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "falconet", "train", "digits", "--epochs", "500", "--out", str(tmp_path / "run")]
    common = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(command, env={**common, "RANK": rank}, stderr=subprocess.PIPE, text=True) for rank in "01"
    ]
    deadline = time.monotonic() + 60
    while not list((tmp_path / "run").glob("checkpoint/epoch-*.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGKILL)
    _, error = processes[0].communicate(timeout=60)
    processes[1].communicate()
    assert processes[0].returncode == 1
    assert "falconet: another process of this run has ended" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(("batch", "size", "part"), [(64, 1, 64), (64, 2, 32), (63, 3, 21)])
def test_a_batch_is_that_of_all_processes_together(batch: int, size: int, part: int) -> None:
    assert split_batch(batch, ProcessGroup(0, size)) == part


def test_parts_of_a_batch_are_equal() -> None:
    with pytest.raises(ConfigError, match=r"training.batch_size: wanted a multiple of the 2 processes, found 63"):
        split_batch(63, ProcessGroup(1, 2))


def test_alone_there_is_nobody_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with init_process_group() as process_group:
        assert process_group == SINGLE_PROCESS
        assert process_group.all_reduce([1.0, 2.5]) == [1.0, 2.5]
        value: dict[str, Any] = {}
        assert process_group.broadcast(value) is value


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        ("[/pytorch/third_party/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1234", True),
        ("Read error [127.0.0.1]:1234: Connection reset by peer", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_a_lost_process_is_told_from_other_errors(message: str, lost: bool) -> None:
    assert is_lost(RuntimeError(message)) is lost

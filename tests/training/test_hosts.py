"""Two hosts that train together: network namespaces of Linux, joined by a virtual cable that can be cut."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from falconet import load_artifact

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
ADDRESSES = ("10.213.0.1", "10.213.0.2")
PORT = 29533
NETWORK = ["--model", "lenet300_100", "--set", "training.precision=fp32", "--set", "augmentation=none"]

IMPATIENT = """
from datetime import timedelta
from falconet.training import distributed
distributed._PATIENCE = timedelta(seconds=8)
from falconet.cli import main
main()
"""
"""The command line, which notices in less time that a host cannot be reached."""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@dataclass(frozen=True)
class Host:
    """A network namespace with its end of the cable."""

    name: str
    address: str

    def start(self, folder: Path, program: list[str], options: list[str]) -> subprocess.Popen[bytes]:
        """Start this host's half of a run; what it says goes into a file beside its own folder."""
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
        meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{ADDRESSES[0]}:{PORT}"]
        # Both namespaces have the name of this machine, by which torchrun would tell who is meant.
        who = ["--rdzv-conf", f"is_host={int(self.address == ADDRESSES[0])}", "--local-addr", self.address]
        command = [
            *torchrun,
            *meeting,
            *who,
            *program,
            "train",
            "digits",
            "--out",
            str(folder / self.address),
            *options,
        ]
        with self.log(folder).open("wb") as log:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command],
                env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": self.name},
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )

    def log(self, folder: Path) -> Path:
        return folder / f"{self.address}.log"

    def kill(self) -> None:
        """End all that runs on this host, without a word to anyone."""
        found = subprocess.run(["ip", "netns", "pids", self.name], check=False, capture_output=True, text=True)
        for process in map(int, found.stdout.split()):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def why_not() -> str:
    """Return why no namespaces can be made here, or nothing where they can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if shutil.which("ip") is None:
        return "the program ip is missing (apt-get install iproute2)"
    made = subprocess.run(["ip", "netns", "add", "falcprobe"], check=False, capture_output=True, text=True)
    subprocess.run(["ip", "netns", "delete", "falcprobe"], check=False, capture_output=True)
    return f"network namespaces cannot be made: {made.stderr.strip()}" if made.returncode else ""


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts that see each other and nothing else."""
    if reason := why_not():
        pytest.skip(reason)
    # Names of interfaces have 15 characters at most; those of other processes' tests differ.
    first, second = (
        Host(f"falc{os.getpid() % 10**8}{end}", address) for end, address in zip("ab", ADDRESSES, strict=True)
    )
    try:
        for host in (first, second):
            ip("netns", "add", host.name)
            ip("-n", host.name, "link", "set", "lo", "up")
        ip("link", "add", first.name, "netns", first.name, "type", "veth", "peer", second.name, "netns", second.name)
        for host in (first, second):
            ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", host.name)
            ip("-n", host.name, "link", "set", host.name, "up")
        yield first, second
    finally:
        for host in (first, second):
            host.kill()
            subprocess.run(["ip", "netns", "delete", host.name], check=False, capture_output=True)


def read_losses(out: Path) -> list[float]:
    with (out / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) for name in ("train_loss", "val_loss")]


def test_two_hosts_have_the_losses_of_one_process(tmp_path: Path, hosts: tuple[Host, Host]) -> None:
    options = [*NETWORK, "--epochs", "2"]
    running = [host.start(tmp_path, ["-m", "tests.plain"], options) for host in hosts]
    for host, process in zip(hosts, running, strict=True):
        assert process.wait(timeout=180) == 0, host.log(tmp_path).read_text()
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [ADDRESSES[0]]
    alone = [sys.executable, "-m", "tests.plain", "train", "digits", "--out", str(tmp_path / "alone"), *options]
    subprocess.run(alone, cwd=ROOT, check=True, capture_output=True, timeout=180)
    losses = read_losses(tmp_path / ADDRESSES[0])
    assert len(losses) == 4
    assert losses == pytest.approx(read_losses(tmp_path / "alone"), abs=1e-5)
    assert load_artifact(tmp_path / ADDRESSES[0]).config.provenance.epochs == 2


def start_long(folder: Path, hosts: tuple[Host, Host]) -> list[subprocess.Popen[bytes]]:
    """Start a run that would take hours, and return torchrun of each host once steps are taken."""
    script = folder / "impatient.py"
    script.write_text(IMPATIENT)
    running = [host.start(folder, [str(script)], [*NETWORK, "--epochs", "100000"]) for host in hosts]
    deadline = time.monotonic() + 120
    while not list(folder.glob("*/checkpoint/*.json")):
        assert time.monotonic() < deadline
        assert [process.poll() for process in running] == [None, None]
        time.sleep(0.1)
    return running


def check_told(log: Path) -> None:
    """Wait for the line that says what became of the other host; a busy machine may take its time."""
    deadline = time.monotonic() + 90
    while "falconet: " not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    lines = [line for line in log.read_text().splitlines() if line.startswith("falconet: ")]
    assert len(lines) == 1, log.read_text()
    assert lines[0].startswith("falconet: another process of this run has ended or cannot be reached")


def test_a_cut_cable_ends_both_hosts_with_a_line(tmp_path: Path, hosts: tuple[Host, Host]) -> None:
    running = start_long(tmp_path, hosts)
    ip("-n", hosts[1].name, "link", "set", hosts[1].name, "down")
    for host in hosts:
        check_told(host.log(tmp_path))
    assert running[0].wait(timeout=60) == 1
    # There, torchrun tries for minutes to tell the host where both have met.
    hosts[1].kill()
    running[1].wait()


# A cut cable is what the main process sees of a lost worker, too.
@pytest.mark.parametrize("lost", [0, pytest.param(1, marks=pytest.mark.full)])
def test_a_killed_host_ends_the_other_with_a_line(tmp_path: Path, hosts: tuple[Host, Host], lost: int) -> None:
    running = start_long(tmp_path, hosts)
    hosts[lost].kill()
    running[lost].wait()
    check_told(hosts[1 - lost].log(tmp_path))
    assert running[1 - lost].wait(timeout=120) == 1

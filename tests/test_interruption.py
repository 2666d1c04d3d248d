"""Ctrl-C that a library swallows stops the work all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from falconet import Callback, interruption
from falconet.storage import write_bytes
from falconet.training import TrainConfig, loop
from falconet.training.loop import fit

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Swallowing:
    """Presses Ctrl-C where Python lets no exception out: in its destructor, as in a callback that C code calls."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):  # The handler runs here.
            pass


class PressInEpoch(Callback):
    def __init__(self, epoch: int, last: bool) -> None:
        self.epoch, self.last = epoch, last
        self.steps = 0
        self.seen = 0

    def on_start(self, epochs: int, steps_per_epoch: int, history: object) -> None:
        self.steps = steps_per_epoch

    def on_step(self, step: int, loss: float) -> None:
        self.seen = step
        if step == self.epoch * self.steps - (0 if self.last else 1):
            Swallowing()


@pytest.fixture
def watched() -> Iterator[None]:
    with interruption.watched():
        yield


@pytest.mark.usefixtures("watched")
def test_what_was_swallowed_comes_again_until_it_is_heeded(tmp_path: Path) -> None:
    interruption.check()
    Swallowing()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            interruption.check()
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "file", b"content")
    assert not list(tmp_path.iterdir())
    interruption.forget()
    write_bytes(tmp_path / "file", b"content")


def test_handlers_are_put_back_and_those_of_others_left(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert before is signal.default_int_handler
    with interruption.watched():
        assert signal.getsignal(signal.SIGINT) is interruption.arrive
        with interruption.watched():
            Swallowing()
        with pytest.raises(KeyboardInterrupt):
            interruption.check()
    assert signal.getsignal(signal.SIGINT) is before
    interruption.check()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruption.watched():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        interruption.watch_signals(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN, "as in a shell's background"
    finally:
        signal.signal(signal.SIGINT, before)


PRESSES = """
import atexit, importlib, os, signal, sys
app = importlib.import_module("falconet.cli.app")

def press(*_, **__):
    os.kill(os.getpid(), signal.SIGINT)

write = app._write_error
app.app = press if sys.argv[1] == "twice" else lambda *_, **__: 0
app._write_error = lambda text: (write(text), press())
atexit.register(press)
app.main()
"""


@pytest.mark.parametrize(("how", "said"), [("twice", "falconet: stopped\n"), ("once", "")])
def test_what_comes_when_all_is_done_ends_the_process_without_another_word(how: str, said: str) -> None:
    command = [sys.executable, "-c", PRESSES, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == said
    assert done.returncode == -signal.SIGINT, "the one that comes while Python ends"


class Few:
    """Four batches of two classes that a line parts."""

    def __len__(self) -> int:
        return 4

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in range(start, 4):
            labels = torch.arange(6) % 2
            yield labels.float().view(6, 1) + batch / 10, labels


@pytest.mark.parametrize("last", [False, True])
def test_training_stops_where_a_callback_swallowed_it(last: bool) -> None:
    callback = PressInEpoch(2, last)
    result = fit(nn.Linear(1, 2), Few(), Few(), TrainConfig(epochs=4, precision="fp32"), callbacks=[callback])
    assert result.ending == "interrupted"
    assert callback.seen <= 8, "it stopped within a step, or at the end of the epoch"
    assert len(result.history) == (2 if last else 1)
    assert 1 <= result.best_epoch <= len(result.history)
    interruption.check()


def test_an_interrupt_does_not_part_an_epoch_from_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes while the weights of the second epoch are copied, of which nothing is kept then."""
    copies = 0

    def clone(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        nonlocal copies
        copies += 1
        if copies == 3:  # The first is of the initial weights.
            raise KeyboardInterrupt
        return {name: tensor.detach().clone() for name, tensor in weights.items()}

    monkeypatch.setattr(loop, "clone", clone)
    config = TrainConfig(epochs=4, precision="fp32", restore="last")
    result = fit(nn.Linear(1, 2), Few(), Few(), config)
    assert (result.ending, len(result.history), result.best_epoch) == ("interrupted", 1, 1)


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("presses", [0, 1, 2])
def test_the_first_one_waits_where_it_would_do_harm_and_the_second_does_not(presses: int) -> None:
    reached = []

    def work() -> None:
        with interruption.deferred():
            for press in range(presses):
                os.kill(os.getpid(), signal.SIGINT)
                reached.append(press)

    if presses:
        with pytest.raises(KeyboardInterrupt):
            work()
        interruption.forget()
    else:
        work()
    assert reached == [0][:presses]
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)

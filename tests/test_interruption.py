"""Ctrl-C that a library swallows stops the work all the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from falconet import Callback, interruption, train
from falconet.errors import InterruptedRunError
from falconet.storage import write_bytes

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
        interruption.watch(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN, "as in a shell's background"
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("last", [False, True])
def test_training_stops_where_a_callback_swallowed_it(tmp_path: Path, last: bool) -> None:
    callback = PressInEpoch(2, last)
    with pytest.raises(InterruptedRunError, match=r"stopped after [12] of 4 epochs; the best weights so far"):
        train("digits", model="lenet300_100", epochs=4, out=tmp_path, callbacks=[callback])
    assert callback.seen <= 2 * callback.steps, "it stopped within the step"
    assert (tmp_path / "model.safetensors").is_file()
    interruption.check()

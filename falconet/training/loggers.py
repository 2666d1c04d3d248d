"""Loggers that write a run for other programs, besides `metrics.csv`. Importing this does not import torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from falconet.errors import MissingExtraError, UnknownNameError
from falconet.storage import storage_error
from falconet.training.callbacks import Callback, EpochRow

EVERY = 10
"""Steps from one written step loss to the next."""
_EVENTS = "events.out.tfevents.*"
"""Pattern of the names of TensorBoard's files."""


class TensorBoardLogger(Callback):
    """Writes scalars into `folder`, as TensorBoard's event files; needs the extra `tensorboard`.

    The horizontal axis counts steps of the optimizer. An epoch's last step has `loss/train`, `loss/val`,
    `accuracy/train`, `accuracy/val` (fractions of 0 to 1), `learning_rate` and `seconds_per_epoch`; `loss/step` is the
    loss of every tenth step within it. Steps that a run repeats after it was killed or rolled back replace those that
    were written before. Its methods raise StorageError.
    """

    def __init__(self, folder: str | Path) -> None:
        check_logger("tensorboard")
        self.folder = Path(folder)
        self.writer: Any = None
        self.rows: list[EpochRow] = []
        self.length = 0
        self.step = -1
        """The last step that was reported; -1 at the start."""

    def on_start(self, epochs: int, steps_per_epoch: int, history: Sequence[EpochRow]) -> None:
        self.rows, self.length, self.step = list(history), steps_per_epoch, -1

    def on_step(self, step: int, loss: float) -> None:
        with self.writing():
            if step != self.step + 1:
                self.begin(step)
            self.step = step
            # The end of an epoch has its own losses, which may be written anew; see `begin`.
            if step % EVERY == 0 and step % self.length:
                self.writer.add_scalar("loss/step", loss, step)

    def on_epoch(self, row: EpochRow, best: bool) -> None:
        self.rows.append(row)
        with self.writing():
            if self.writer is None:  # An epoch whose output layer was solved has no steps.
                self.begin((row.epoch - 1) * self.length + 1)
            self.add(row)
            # Events wait in memory otherwise, and are lost with a process that is killed.
            self.writer.flush()

    def on_end(self) -> None:
        if self.writer is not None:
            with self.writing():
                self.writer.close()
            self.writer = None

    def begin(self, step: int) -> None:
        """Open a file that continues with `step`: TensorBoard discards earlier events of this and later steps."""
        from torch.utils.tensorboard import SummaryWriter

        self.on_end()
        old = list(self.folder.glob(_EVENTS))
        if step == 1:
            for path in old:
                path.unlink()
        done, within = divmod(step - 1, self.length)
        # A process may have been killed between an epoch's checkpoint and its events: the last one is written again.
        purged = step if within else done * self.length
        self.writer = SummaryWriter(str(self.folder), purge_step=purged)
        known = (done if within else done - 1) if old else 0
        for row in self.rows[max(known, 0) : done]:
            self.add(row)

    def add(self, row: EpochRow) -> None:
        scalars = {
            "loss/train": row.train_loss,
            "loss/val": row.val_loss,
            "accuracy/train": row.train_accuracy,
            "accuracy/val": row.val_accuracy,
            "learning_rate": row.learning_rate,
            "seconds_per_epoch": row.seconds,
        }
        for tag, value in scalars.items():
            self.writer.add_scalar(tag, value, row.epoch * self.length)

    @contextmanager
    def writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.writer = None
            raise storage_error(self.folder, error) from error


def find_events(out: Path) -> Iterator[Path]:
    """Yield TensorBoard's files of the run in the folder `out`."""
    return (out / "tensorboard").glob(_EVENTS)


_LOGGERS: dict[str, Callable[[Path], Callback]] = {"tensorboard": TensorBoardLogger}
"""Loggers by name, which is also that of the extra, of the package, and of the folder within the run's."""


def check_logger(name: str) -> None:
    """Raise UnknownNameError for a logger that does not exist, MissingExtraError where its package is missing."""
    if name not in _LOGGERS:
        raise UnknownNameError("logger", name, _LOGGERS)
    if importlib.util.find_spec(name) is None:
        raise MissingExtraError(name, f"--log {name}")


def create_logger(name: str, out: Path) -> Callback:
    """Return a logger of the run in the folder `out`; raises like `check_logger`."""
    check_logger(name)
    return _LOGGERS[name](out / name)

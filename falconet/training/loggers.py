"""What writes a run down for other programs to show, beside `metrics.csv`. Importing it does not import torch."""

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
"""Steps from one loss of a single step to the next that is written."""
_EVENTS = "events.out.tfevents.*"
"""How TensorBoard's files are called."""


class TensorBoardLogger(Callback):
    """Writes scalars into `folder`, as TensorBoard's event files; needs the extra `tensorboard`.

    The horizontal axis counts steps of the optimizer. At an epoch's last step stand `loss/train`, `loss/val`,
    `accuracy/train`, `accuracy/val` (fractions of 0 to 1), `learning_rate` and `seconds_per_epoch`; `loss/step` is the
    loss of every EVERYth step within it. What a run repeats after it was killed, or went back, takes the place of what
    was written before. Its methods raise StorageError.
    """

    def __init__(self, folder: str | Path) -> None:
        check_logger("tensorboard")
        self.folder = Path(folder)
        self.writer: Any = None
        self.rows: list[EpochRow] = []
        self.length = 0
        self.step = -1
        """The last one that was told."""

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
        """Open a file that goes on with `step`: what TensorBoard has read of it and later ones does not count."""
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
"""By the name of the logger, which is that of its extra, its package, and its folder within a run's, too."""


def check_logger(name: str) -> None:
    """Raise UnknownNameError for a logger that there is none of, MissingExtraError where its package is missing."""
    if name not in _LOGGERS:
        raise UnknownNameError("logger", name, _LOGGERS)
    if importlib.util.find_spec(name) is None:
        raise MissingExtraError(name, f"--log {name}")


def create_logger(name: str, out: Path) -> Callback:
    """Return what writes the run in the folder `out` down; raises like `check_logger`."""
    check_logger(name)
    return _LOGGERS[name](out / name)

"""Keras, as teaching articles write it: Sequential, NumPy arrays of 0..1, Adam, `model.fit`."""

from __future__ import annotations

from typing import Any

import keras  # type: ignore[import-not-found]
import numpy as np
import tensorflow as tf  # type: ignore[import-untyped]
from task import EpochClock, Race, Task, answer, read_split, read_task


class Watch(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells a clock of epochs or of a race what has ended."""

    def __init__(self, clock: EpochClock | Race) -> None:
        super().__init__()
        self.clock = clock
        self.step = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.step += 1
        if isinstance(self.clock, Race) and self.clock.end_step(self.step):
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if isinstance(self.clock, EpochClock):
            self.clock.end_epoch()


def main() -> None:
    task = read_task(__doc__)
    keras.utils.set_random_seed(task.seed)
    x_train, y_train = read_arrays(task, "train")
    x_test, y_test = read_arrays(task, "test")
    model = build()
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])

    def judge() -> float:
        answers = model.predict(x_test, batch_size=1000, verbose=0).argmax(axis=1)
        return float((answers == y_test).mean())

    clock = Race(task, judge) if task.every else EpochClock(len(y_train))
    watch = [Watch(clock)]
    model.fit(x_train, y_train, batch_size=task.batch_size, epochs=task.epochs, verbose=2, callbacks=watch)
    answer(f"Keras {keras.__version__}, TensorFlow {tf.__version__}", model.count_params(), clock)


def read_arrays(task: Task, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images of 0..1 as `(samples, 28, 28, 1)`, and labels."""
    images, labels = read_split(task, name)
    return images[..., None].astype("float32") / 255, labels


def build() -> Any:
    """Return falconet's `lenet_relu`."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )


if __name__ == "__main__":
    main()

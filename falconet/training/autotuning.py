"""Measurements before a run that choose its learning rate, batch size and number of epochs."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import repeat

import torch
from torch import Tensor, nn

from falconet.data.loader import Loader
from falconet.errors import DivergedError, OutOfMemoryError
from falconet.memory import kept_memory
from falconet.training.batches import Batches
from falconet.training.config import TrainConfig
from falconet.training.finetuning import freeze
from falconet.training.loop import (
    init_state,
    is_out_of_memory,
    make_context,
    train_step,
    without_augmentation,
    wrap_model,
)

_MIN_RATE, _HIGHEST_RATE = 1e-6, 10.0
_STEPS = 100
"""Steps of the range test, each at a higher learning rate."""
_SMOOTHING = 0.9
"""Weight of the earlier losses in the exponential moving average, since single batches differ."""
_TOO_HIGH = 4.0
"""Multiple of the lowest loss at which the range test stops."""
_SAFETY = 10.0
"""Divisor of the rate with the lowest loss: a tenth of it leaves room for later steps."""
_SIZES = (16, 32, 64, 128, 256, 512)
_MIN_SPEED_FRACTION = 0.9
"""Fraction of the highest throughput that a smaller batch must reach to be chosen, as it takes more steps an epoch."""
_MIN_BATCHES = 16
"""Batches that an epoch must have at least: fewer steps teach less."""
SECONDS = 1.0
"""Seconds for which each batch size is timed, at least."""


@dataclass(frozen=True)
class LRRangeTest:
    """The losses at rising learning rates."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    """The smoothed loss at each rate, up to the first that is too high."""

    @property
    def suggestion(self) -> float:
        """The learning rate to take: a tenth of the one with the lowest loss."""
        return self.rates[min(range(len(self.losses)), key=self.losses.__getitem__)] / _SAFETY


def lr_range_test(
    model: nn.Module,
    train: Batches,
    config: TrainConfig,
    class_weights: Tensor | None = None,
    teacher: nn.Module | None = None,
) -> LRRangeTest:
    """Train a copy of a network at ever higher rates, and return the losses.

    L. N. Smith: Cyclical learning rates for training neural networks. WACV, 2017, section 3.3. The rate is raised by
    the same factor each step until the loss exceeds four times its lowest, or is not finite. Raises DivergedError
    where it never is finite.
    """
    rates = [_MIN_RATE * (_HIGHEST_RATE / _MIN_RATE) ** (index / (_STEPS - 1)) for index in range(_STEPS)]
    with _scratch_copy(model, config) as network:
        scan = _collect(rates, (loss for loss, _ in take_steps(network, train, config, rates, class_weights, teacher)))
    if not scan.losses:
        raise DivergedError("the loss is not finite even before the first step, so that no learning rate can be found")
    return scan


@contextmanager
def _scratch_copy(model: nn.Module, config: TrainConfig) -> Iterator[nn.Module]:
    """Yield a copy of a network to be trained, without an effect on the original or on torch's generator."""
    with torch.random.fork_rng(devices=[]), kept_memory():
        torch.manual_seed(config.seed)
        yield copy.deepcopy(model)


def take_steps(
    network: nn.Module,
    train: Batches,
    config: TrainConfig,
    rates: Iterable[float],
    class_weights: Tensor | None = None,
    teacher: nn.Module | None = None,
) -> Iterator[tuple[float, int]]:
    """Take a step at each learning rate, as the first epoch would, but with images of full size and not compiled.

    Yield, after each, the loss before it and the size of its batch; end with a loss that is not finite.
    """
    config = replace(config, initial_scale=1.0, compile=False)
    context = make_context(network, train, config, class_weights, teacher)
    state = init_state(network, config, context.policy)
    network.train()
    freeze(network, config, 1)
    wrap_model(state, context)
    for step, (rate, batch) in enumerate(zip(rates, _repeat_epochs(train), strict=False)):
        try:
            loss, _ = train_step(state, context, batch, step, rate)
        except DivergedError:
            return
        yield loss, len(batch[1])


def _repeat_epochs(train: Batches) -> Iterator[tuple[Tensor, ...]]:
    """Yield batches without end."""
    epoch = 1
    while True:
        yield from train.epoch(epoch)
        epoch += 1


def _collect(rates: Sequence[float], losses: Iterator[float]) -> LRRangeTest:
    """Return learning rates and smoothed losses, up to the first loss that is too high."""
    smooth: list[float] = []
    mean = 0.0
    for count, loss in enumerate(losses, start=1):
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        value = mean / (1 - _SMOOTHING**count)
        if not math.isfinite(value) or (smooth and value > _TOO_HIGH * min(smooth)):
            break
        smooth.append(value)
    return LRRangeTest(tuple(rates[: len(smooth)]), tuple(smooth))


def find_batch_size(
    model: nn.Module,
    make_train: Callable[[int], Batches],
    config: TrainConfig,
    class_weights: Tensor | None = None,
    teacher: nn.Module | None = None,
) -> tuple[int, str]:
    """Return the smallest batch size with at least 90% of the highest throughput, and a line about the measurements.

    `make_train` returns the training samples in batches of a size. A copy of the network takes the steps. Sizes are
    tried in rising order, as long as an epoch has 16 batches or more and memory suffices. Raises OutOfMemoryError
    where it does not suffice for the smallest.
    """
    speeds: dict[int, float] = {}
    for size in _SIZES:
        train = make_train(size)
        if len(train) < _MIN_BATCHES and speeds:
            break
        try:
            speeds[size] = measure_training_throughput(
                model, train, replace(config, batch_size=size), class_weights, teacher
            )
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if not speeds:
                raise OutOfMemoryError(f"out of memory in batches of {size}, the smallest that was tried") from error
            break
    best = max(speeds.values())
    chosen = min(size for size, speed in speeds.items() if speed >= _MIN_SPEED_FRACTION * best)
    rates = ", ".join(f"{size}: {speed:,.0f}" for size, speed in speeds.items())
    return chosen, f"batch size {chosen} (samples a second by size: {rates})"


_EPOCH_OVERHEAD = 1.25
"""Duration of an epoch over that of its steps alone: validation, and solving the output layer, take the rest."""


def find_epochs(
    model: nn.Module,
    train: Batches,
    config: TrainConfig,
    count: int,
    seconds: float,
    class_weights: Tensor | None = None,
    teacher: nn.Module | None = None,
) -> tuple[int, str]:
    """Return how many epochs over `count` samples fit into a time, at most those of `config`, and a line that says so.

    A copy of the network takes the steps that are timed. _EPOCH_OVERHEAD accounts for validation, and for an epoch
    whose output layer is solved.
    """
    epoch = _EPOCH_OVERHEAD * count / measure_training_throughput(model, train, config, class_weights, teacher)
    epochs = min(max(int(seconds / epoch), 1), config.epochs)
    if epochs == 1 and config.linear_probe is not None:
        return 1, f"the output layer is solved alone, as an epoch after that takes about {epoch:,.0f} s"
    if epoch > seconds:
        return 1, f"one epoch alone takes about {epoch:,.0f} s, longer than the {seconds:,.0f} s that are left"
    return epochs, f"{epochs} epoch{'s' if epochs > 1 else ''} of about {epoch:.0f} s, in {seconds:,.0f} s"


@torch.inference_mode()
def measure_inference_throughput(model: nn.Module, samples: Loader, enough: float) -> float:
    """Return a network's throughput in samples a second, in batches of similar length, as in feature extraction.

    The first batch, of median length and slower than later ones, suffices where its throughput reaches `enough`. Else
    it is not counted, unless it is the only one, and random other batches are timed for SECONDS.
    """
    plain = without_augmentation(samples, len(samples.labels))
    order = torch.randperm(len(plain), generator=torch.Generator().manual_seed(0)).tolist()
    order = [len(plain) // 2, *(position for position in order if position != len(plain) // 2)]
    place = next(iter(model.parameters())).device
    model.eval()
    answered, started = 0, time.perf_counter()
    rate = 0.0
    for index, position in enumerate(order):
        inputs, labels = next(iter(plain.epoch(1, position)))
        model(inputs.to(place))
        now = time.perf_counter()
        answered += len(labels)
        rate = answered / (now - started)
        if index == 0:
            if rate >= enough:
                break
            answered, started = 0, now
        elif now - started > SECONDS:
            break
    return rate


def measure_training_throughput(
    model: nn.Module,
    train: Batches,
    config: TrainConfig,
    class_weights: Tensor | None = None,
    teacher: nn.Module | None = None,
) -> float:
    """Return the training throughput of a copy of a network in samples a second; the first step is not counted.

    Raises DivergedError where the loss is not finite from the first steps on.
    """
    samples, started, now = 0, 0.0, 0.0
    with _scratch_copy(model, config) as network:
        steps = take_steps(network, train, config, repeat(config.learning_rate), class_weights, teacher)
        for index, (_, count) in enumerate(steps):
            now = time.perf_counter()
            if index == 0:
                started = now
                continue
            samples += count
            if index > 2 and now - started > SECONDS:
                break
    if not samples:
        raise DivergedError("the loss is not finite in the first steps, so that their speed says nothing")
    return samples / (now - started)

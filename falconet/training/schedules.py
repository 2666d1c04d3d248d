"""Learning rates as pure functions of the step, so that a run can be resumed at any step."""

import math

from falconet.training.config import TrainConfig

_ONE_CYCLE_START = 1 / 25
_ONE_CYCLE_END = 1e-4 / 25


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Return the learning rate of a step from 0 to `steps - 1`.

    - `constant`: linear warm-up, then the peak.
    - `cosine`: linear warm-up, then half a cosine down to zero (Loshchilov, Hutter: SGDR, 2017, one cycle).
    - `one_cycle`: half a cosine up from 1/25 of the peak, then half a cosine down to 1/250,000 of it (Smith, Topin:
      Super-convergence, 2018, with the shape of torch's OneCycleLR).
    """
    rise = max(config.warmup * steps - 1, 0) if config.schedule == "one_cycle" else config.warmup * steps
    progress = (step - rise) / max(steps - 1 - rise, 1)
    if config.schedule == "one_cycle":
        if step < rise:
            return config.learning_rate * _anneal(_ONE_CYCLE_START, 1, step / rise)
        return config.learning_rate * _anneal(1, _ONE_CYCLE_END, progress)
    if step < rise:
        return config.learning_rate * (step + 1) / (rise + 1)
    if config.schedule == "cosine":
        return config.learning_rate * _anneal(1, 0, progress)
    return config.learning_rate


_WHOLE_FROM = 0.75
"""Fraction of the steps after which images have their full size."""
_SIDE_STEP = 4
"""Pixels by which a side grows at a time, so that there are few sizes, which halve well."""


def training_side(side: int, step: int, steps: int, initial_scale: float) -> int:
    """Return a side in pixels at a step from 0 to `steps - 1`: from `initial_scale` of it, rounded, to all of it."""
    fraction = initial_scale + (1 - initial_scale) * min(step / (_WHOLE_FROM * steps), 1)
    return side if fraction >= 1 else min(side, max(round(side * fraction / _SIDE_STEP), 1) * _SIDE_STEP)


def _anneal(start: float, end: float, progress: float) -> float:
    """Return the value between start and end along half a cosine, for a progress from 0 to 1."""
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1))) / 2

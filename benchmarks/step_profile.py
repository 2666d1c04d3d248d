"""What the time of a training step goes to, by torch's profiler, as shares of the time between two steps' ends.

Prints one line of JSON. `other` is what the profiler ascribes to no kind of operation: Python, waiting for a batch.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict

from noise import StepClock, train_on_noise
from torch.profiler import ProfilerActivity, profile

from falconet import Callback

WARM_UP = 10
"""Steps before the profiled ones."""
KINDS = (
    ("convolutions", ("convolution",)),
    ("batch normalization", ("batch_norm",)),
    ("pooling", ("pool",)),
    ("ReLU", ("relu", "threshold", "clamp_min")),
    ("dense layers", ("addmm", "aten::mm", "aten::linear")),
    ("optimizer", ("fused_adam", "_foreach", "optimizer")),
    ("sums and copies", ("copy_", "add_", "aten::add", "fill_", "zero_", "empty", "aten::to")),
)
"""What an operation is counted as: the first kind of which a part of its name has one of these."""


class StepProfiler(Callback):
    """Watches the steps behind WARM_UP, to the last one."""

    def __init__(self, last: int) -> None:
        self.profiler = profile(activities=[ProfilerActivity.CPU], acc_events=True)
        self.last = last

    def on_step(self, step: int, loss: float) -> None:
        if step == WARM_UP:
            self.profiler.start()
        elif step == self.last:
            self.profiler.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--shape", type=int, nargs=3, required=True, help="channels, height and width")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--precision", choices=["fp32", "bf16"], required=True)
    parser.add_argument("--steps", type=int, default=40, help="that are profiled")
    arguments = parser.parse_args()
    steps = WARM_UP + arguments.steps
    clock, watch = StepClock(), StepProfiler(steps)
    train_on_noise(
        arguments.model, tuple(arguments.shape), arguments.batch_size, steps, [clock, watch], arguments.precision
    )
    print(json.dumps(share_time(watch.profiler, clock.ends[-1] - clock.ends[WARM_UP - 1])))


def share_time(profiler: profile, whole: float) -> dict[str, float]:
    """Return the share of `whole` seconds that each kind of operation took itself."""
    seconds: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        kind = next((kind for kind, names in KINDS if any(name in event.key for name in names)), "other")
        seconds[kind] += event.self_cpu_time_total / 1e6
    known = {kind: seconds[kind] / whole for kind, _ in KINDS}
    return {**known, "other": 1 - sum(known.values())}


if __name__ == "__main__":
    main()

"""Falconet: a recipe on MNIST, planned and prepared as `falconet train` does it, up to the aimed-at test accuracy.

Its own validation after each epoch counts as training. The weights of the step are judged, not an average of them.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress

import torch
from task import Race, answer, read_task
from torch import nn
from torch_network import count_params

from falconet import Callback, Loader, fit
from falconet.data.loader import load_inputs
from falconet.planning import plan_run
from falconet.preparation import build, prepare


class AimReachedError(Exception):
    """Ends the training."""


class Watch(Callback):
    """Tells the race that a step has ended."""

    def __init__(self, race: Race) -> None:
        self.race = race

    def on_step(self, step: int, loss: float) -> None:
        if self.race.end_step(step):
            raise AimReachedError


def main() -> None:
    task = read_task(__doc__)
    with tempfile.TemporaryDirectory() as out:
        plan = plan_run("mnist", recipe=task.recipe, seed=task.seed, out=out, data_root=task.data_root)
    feed = prepare(plan)
    test = load_inputs(plan.dataset.splits["test"], feed.spec)
    judged = Loader(test.inputs, torch.from_numpy(test.split.labels), feed.train.preprocess, 1000)
    model, _ = build(plan.config.model, feed.spec, feed.output, task.seed)
    race = Race(task, lambda: judge(model, judged))
    with suppress(AimReachedError):
        fit(
            model,
            feed.train,
            feed.val,
            plan.config.training,
            class_weights=feed.class_weights,
            callbacks=[Watch(race)],
        )
    answer("falconet", count_params(model), race)


@torch.inference_mode()
def judge(model: nn.Module, test: Loader) -> float:
    """Return the test accuracy, in float32; leave the model in training mode."""
    model.eval()
    hits = sum(int((model(images).argmax(dim=1) == labels).sum()) for images, labels in test.epoch(1))
    model.train()
    return hits / len(test.labels)


if __name__ == "__main__":
    main()

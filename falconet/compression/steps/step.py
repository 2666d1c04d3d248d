"""The protocol of steps, and `chain`, which combines steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn

from falconet.errors import UsageError


@runtime_checkable
class Step(Protocol):
    """A function that returns a smaller module, or one with simpler weights."""

    @property
    def structural(self) -> bool:
        """Whether the step changes layers; if not, it constrains values."""

    def __call__(self, model: nn.Module) -> nn.Module:
        """Return another module; `model` stays as it is."""

    def find_untouched(self, model: nn.Module) -> dict[str, str]:
        """Return why parameters or modules are left as they are, by name."""


@dataclass(frozen=True)
class Chain:
    """Steps one after another. Raises UsageError where one that changes layers comes after one that constrains."""

    steps: tuple[Step, ...]
    recover: Callable[[nn.Module], None] | None = None
    """Called with what each step returns; may train it in place."""

    def __post_init__(self) -> None:
        constraining: Step | None = None
        for step in _iterate_steps(self.steps):
            if not step.structural:
                constraining = step
            elif constraining is not None:
                raise UsageError(
                    f"chain: wanted steps that change layers before those that constrain weights, found {step} after "
                    f"{constraining}; put it first"
                )

    @property
    def structural(self) -> bool:
        return all(step.structural for step in self.steps)

    def __call__(self, model: nn.Module) -> nn.Module:
        model = model if self.steps else deepcopy(model)
        for step in self.steps:
            model = step(model)
            if self.recover is not None:
                self.recover(model)
        return model

    def find_untouched(self, model: nn.Module) -> dict[str, str]:
        """Return the steps' reasons by name, for the module as it is before the first one."""
        reasons: dict[str, list[str]] = {}
        for step in self.steps:
            for name, reason in step.find_untouched(model).items():
                reasons.setdefault(name, []).append(f"{type(step).__name__}: {reason}")
        return {name: "; ".join(lines) for name, lines in reasons.items()}


def _iterate_steps(steps: tuple[Step, ...]) -> Iterator[Step]:
    """Return the steps, with those of chains among them."""
    for step in steps:
        if isinstance(step, Chain):
            yield from _iterate_steps(step.steps)
        else:
            yield step


def chain(*steps: Step, recover: Callable[[nn.Module], None] | None = None) -> Chain:
    """Return the step that applies steps in order and calls `recover`, if any, with what each returns."""
    return Chain(steps, recover)

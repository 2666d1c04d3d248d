"""Tasks, what is predicted for a sample: a file for each, and TASKS, the one table that names them all.

A task says what a network's outputs mean. Whoever has an output spec looks its task up, and never asks which one it is.
Losses are imported, and torch with them, when one is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from falconet.spec import OutputSpec, TaskName
from falconet.tasks.classification import CLASSIFICATION
from falconet.tasks.task import Task as Task

TASKS: Mapping[TaskName, Task] = MappingProxyType({"classification": CLASSIFICATION})


def task_of(output: OutputSpec) -> Task:
    """Return the task of what a network's outputs mean."""
    return TASKS[output.task]

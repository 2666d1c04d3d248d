"""The task of classification, and the table of tasks."""

from __future__ import annotations

from typing import get_args

import torch

from falconet import load_dataset
from falconet.spec import ClassificationSpec, TaskName
from falconet.tasks import TASKS, task_of


def test_the_table_holds_each_task_once() -> None:
    assert tuple(TASKS) == get_args(TaskName)
    assert [task.name for task in TASKS.values()] == list(TASKS)
    assert [task.output_type for task in TASKS.values()] == [ClassificationSpec]
    assert task_of(ClassificationSpec(("a", "b"))) is TASKS["classification"]


def test_outputs_are_those_of_the_data_sets_classes() -> None:
    assert TASKS["classification"].make_output(load_dataset("digits")) == ClassificationSpec(tuple("0123456789"))


def test_answers_are_probabilities_and_hits_those_of_the_most_probable_class() -> None:
    task, logits = TASKS["classification"], torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 0.0, 5.0]])
    torch.testing.assert_close(task.activate(logits), torch.softmax(logits, dim=1))
    assert task.count_hits(logits, torch.tensor([0, 2, 2])) == 2
    mixed = torch.tensor([[0.4, 0.6, 0.0], [0.1, 0.9, 0.0], [0.2, 0.2, 0.6]])
    assert task.count_hits(logits, mixed) == 2

"""Files that say of themselves what is not so: refused in one line."""

from __future__ import annotations

import numpy as np
import pytest

from falconet.errors import ExportError
from falconet.exporters.inference import infer
from falconet.exporters.metadata import Metadata
from falconet.exporters.runtimes import Session
from falconet.spec import ClassificationSpec, ImageSpec

SPEC = ImageSpec((1, 16, 16), (0.0,), (1.0,))
METADATA = Metadata("lenet5", SPEC, ClassificationSpec(("a", "b")), output="probabilities", versions={}, data="")


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (np.array([["a", "b"]], dtype=object), "wanted answers as float32, found object"),
        (np.array([[0, 1]]), "wanted answers as float32, found int64"),
        (np.array([[0.5, 0.5j]]), "wanted answers as float32, found complex128"),
        (np.zeros((1, 3), dtype=np.float32), r"wanted \(1, 2\) answers, found \(1, 3\)"),
        (np.zeros((), dtype=np.float32), r"wanted \(1, 2\) answers, found \(\)"),
    ],
)
def test_answers_that_are_no_probabilities_are_refused(answers: np.ndarray, message: str) -> None:
    session = Session(METADATA, lambda batch: answers)
    with pytest.raises(ExportError, match=message):
        infer(session, np.zeros((1, 16, 16, 1), dtype=np.uint8))


def test_answers_in_half_precision_are_taken() -> None:
    answers = np.array([[0.25, 0.75]], dtype=np.float16)
    assert infer(Session(METADATA, lambda batch: answers), np.zeros((1, 16, 16, 1), dtype=np.uint8)) is answers

"""Scores of what is new, by hand and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from hypothesis import given

from falconet.metrics import score_by_energy, score_by_probability
from tests.metrics.drawing import evaluated_logits, quick


@quick
@given(evaluated_logits())
def test_energy_and_probability(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    logits = drawn[0]
    np.testing.assert_allclose(score_by_energy(logits), scipy.special.logsumexp(logits, axis=1))
    np.testing.assert_allclose(score_by_probability(logits), scipy.special.softmax(logits, axis=1).max(axis=1))


def test_energy_knows_how_large_logits_are_and_probability_does_not() -> None:
    logits = np.array([[10.0, 2.0], [8.0, 0.0]], dtype=np.float32)
    assert score_by_energy(logits)[0] == pytest.approx(score_by_energy(logits)[1] + 2)
    assert score_by_probability(logits)[0] == pytest.approx(score_by_probability(logits)[1])


def test_energy_of_large_logits_is_finite() -> None:
    np.testing.assert_allclose(score_by_energy(np.array([[1e5, 0.0], [-1e5, -1e5]])), [1e5, -1e5 + np.log(2)])

"""Logits and labels that property-based tests draw."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

EXACT = 1e-9

quick = settings(deadline=None, max_examples=60)


@st.composite
def evaluated_logits(draw: st.DrawFn, least_classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Draw logits without ties, confident or not, and labels."""
    classes = draw(st.integers(least_classes, 6))
    count = draw(st.integers(1, 30))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = generator.normal(0, draw(st.sampled_from([0.01, 1.0, 4.0])), size=(count, classes))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    return logits, np.array(labels, dtype=np.int64)

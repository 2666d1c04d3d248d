"""Scores that tell samples like those of training from others; higher is more alike."""

import numpy as np
from jaxtyping import Float64

from falconet.metrics.classification import Logits, softmax


def score_by_probability(logits: Logits) -> Float64[np.ndarray, " samples"]:
    """Return the highest probability (Hendrycks and Gimpel, ICLR 2017)."""
    return np.asarray(softmax(logits).max(axis=1))


def score_by_energy(logits: Logits) -> Float64[np.ndarray, " samples"]:
    """Return the negative free energy log sum exp(logits), at temperature 1 (Liu et al., NeurIPS 2020, equation 4)."""
    highest = logits.max(axis=1).astype(np.float64)
    return np.asarray(highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1)))

"""What networks are measured against: models of scikit-learn, trained on all but the test split.

The strength of their regularization is chosen by cross-validation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from falconet import Dataset
from falconet.data import Split

BANDS, PIECES, WINDOW = 24, 10, 256
"""Of recordings: bands of frequency, pieces of time, and steps of a Fourier transform."""


def classify_texts(dataset: Dataset) -> float:
    """Return the accuracy of logistic regression on TF-IDF of words and pairs of words."""
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)), LogisticRegression(max_iter=300))
    return score(GridSearchCV(model, {"logisticregression__C": [1.0, 10.0, 100.0]}, cv=3), dataset, list)


def find_neighbors(dataset: Dataset) -> float:
    """Return the accuracy of the nearest neighbor by Euclidean distance, for series of one length."""
    return score(KNeighborsClassifier(1), dataset, flatten)


def classify_recordings(dataset: Dataset) -> float:
    """Return the accuracy of logistic regression on spectral features."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    strengths = {"logisticregression__C": [0.001, 0.01, 0.1, 1.0, 10.0]}
    return score(GridSearchCV(model, strengths, cv=5), dataset, lambda samples: np.stack([*map(to_spectrum, samples)]))


def classify_pixels(dataset: Dataset) -> float:
    """Return the accuracy of logistic regression on pixels in 0..1."""
    return score(LogisticRegression(max_iter=100), dataset, lambda samples: flatten(samples) / 255)


def flatten(samples: list[np.ndarray]) -> np.ndarray:
    """Return samples of one size as rows."""
    return np.stack([sample.ravel() for sample in samples])


def to_spectrum(series: np.ndarray) -> np.ndarray:
    """Return the logarithm of the mean energy in bands, equally wide in mel, and in pieces of a recording's time."""
    wave = series[0][np.isfinite(series[0])]
    wave = np.pad(wave, (0, max(WINDOW * 2 - len(wave), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[:: WINDOW // 2] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames)) ** 2
    mel = np.log1p(np.arange(power.shape[1]) / power.shape[1] * 5.7)
    band = np.minimum((mel / mel[-1] * BANDS).astype(int), BANDS - 1)
    energy = np.stack([power[:, band == index].sum(axis=1) for index in range(BANDS)], axis=1)
    pieces = np.array_split(np.log(energy + 1e-8), PIECES)
    return np.concatenate([piece.mean(axis=0) if len(piece) else np.zeros(BANDS) for piece in pieces])


def score(model: object, dataset: Dataset, transform: Callable[[list[np.ndarray]], object]) -> float:
    """Train a model of scikit-learn on all but the test split; return its accuracy there."""
    train = [sample for name in ("train", "val") for sample in read(dataset.splits[name])]
    labels = np.concatenate([dataset.splits[name].labels for name in ("train", "val")])
    test = dataset.splits["test"]
    model.fit(transform(train), labels)  # type: ignore[attr-defined]
    return float(model.score(transform(read(test)), test.labels))  # type: ignore[attr-defined]


def read(split: Split) -> list[np.ndarray]:
    """Return all samples of a split."""
    return [split.samples.read(index) for index in range(len(split))]

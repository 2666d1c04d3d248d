"""Networks for sequences and images read as sequences, each by its recipe, beside a baseline that is computed here.

Baselines, trained on all training samples: logistic regression on TF-IDF of words and pairs of words for texts, the
nearest neighbor by Euclidean distance for series, logistic regression on logarithmic band energies over time for
recordings, logistic regression on pixels for images. Their strength of regularization is chosen by cross-validation.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from record import Row, mean, run_json, save
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from falconet import Dataset, load_dataset
from falconet.data import Split

SEEDS = (0, 1, 2)
STRENGTHS = {"logisticregression__C": [0.01, 0.1, 1.0, 10.0, 100.0]}
BANDS, PIECES, WINDOW = 24, 10, 256
"""Of recordings: bands of frequency, pieces of time, and steps of a Fourier transform."""


@dataclass(frozen=True)
class Case:
    """A data set, its baseline, and the recipes that are to beat it."""

    source: str
    """Below the data root, or a name."""
    baseline: str
    measure: Callable[[Dataset], float]
    """Returns the baseline's test accuracy."""
    recipes: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True, help="folder that holds MNIST/, banking77/, ucr/, ...")
    parser.add_argument("--out", help="keeps the runs here, so that an interrupted benchmark goes on")
    parser.add_argument("--case", choices=list(CASES), help="measure only this")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name in [arguments.case] if arguments.case else CASES:
            out = Path(arguments.out or scratch)
            save(f"sequences-{name}", compare(name, CASES[name], arguments.data_root, out))


def compare(name: str, case: Case, root: Path, out: Path) -> list[Row]:
    """Train each recipe for every seed, and return its test accuracy beside the baseline's."""
    source = str(root / case.source) if (root / case.source).exists() else case.source
    peer = 100 * case.measure(load_dataset(source, data_root=root))
    print(f"{name}: {case.baseline} {peer:.2f} %", flush=True)
    return [measure(name, case, recipe, source, root, peer, out) for recipe in case.recipes]


def measure(name: str, case: Case, recipe: str, source: str, root: Path, peer: float, out: Path) -> Row:
    """Return the row of one recipe."""
    command = ("train", source, "--recipe", recipe, "--resume", "--data-root", str(root))
    runs = [run_json(*command, "--seed", str(seed), "--out", str(out / f"{name}-{recipe}-{seed}")) for seed in SEEDS]
    value, std = mean([100 * run["test"]["accuracy"] for run in runs])
    target = f"above {peer:.2f} % (best of {len(case.recipes)})"
    title = f"{name}, recipe {recipe}: test accuracy"
    return Row(title, value, "%", len(runs), std, target, value > peer, case.baseline, peer, value / peer)


def classify_texts(dataset: Dataset) -> float:
    """Return the accuracy of logistic regression on TF-IDF."""
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)), LogisticRegression(max_iter=300))
    return score(GridSearchCV(model, {"logisticregression__C": [1.0, 10.0, 100.0]}, cv=3), dataset, list)


def find_neighbors(dataset: Dataset) -> float:
    """Return the accuracy of the nearest neighbor by Euclidean distance, for series of one length."""
    return score(KNeighborsClassifier(1), dataset, lambda samples: np.stack([sample.ravel() for sample in samples]))


def classify_recordings(dataset: Dataset) -> float:
    """Return the accuracy of logistic regression on spectral features."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return score(GridSearchCV(model, STRENGTHS, cv=5), dataset, lambda samples: np.stack([*map(to_spectrum, samples)]))


def classify_pixels(dataset: Dataset) -> float:
    """Return the accuracy of logistic regression on pixels in 0..1."""
    model = LogisticRegression(max_iter=100)
    return score(model, dataset, lambda samples: np.stack([sample.ravel() / 255 for sample in samples]))


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


CASES: Mapping[str, Case] = {
    "banking77": Case(
        "banking77", "logistic regression on TF-IDF", classify_texts, ("text-gru", "text-transformer", "text-resnet1d")
    ),
    "gunpoint": Case(
        "ucr/GunPoint_TRAIN.ts",
        "nearest neighbor",
        find_neighbors,
        ("series-gru", "series-transformer", "series-resnet1d"),
    ),
    "italypowerdemand": Case(
        "ucr/ItalyPowerDemand_TRAIN.ts",
        "nearest neighbor",
        find_neighbors,
        ("series-gru", "series-transformer", "series-resnet1d"),
    ),
    "spoken-digits": Case(
        "spoken-digits",
        "logistic regression on spectra",
        classify_recordings,
        ("speech-gru", "speech-transformer", "speech-resnet1d"),
    ),
    "mnist": Case(
        "mnist", "logistic regression on pixels", classify_pixels, ("mnist-resnet", "mnist-gru", "mnist-transformer")
    ),
}

if __name__ == "__main__":
    main()

"""scikit-learn, as a practitioner writes it: features by hand, a linear model or an SVM, chosen on validation data.

Images: histograms of oriented gradients (scikit-image) or principal components, each with a support vector machine.
Texts: TF-IDF of words and their pairs, or of 2 to 5 letters within words, with a linear one. Series: MiniRocket (aeon)
with ridge regression. Recordings: MiniRocket on the waves, or an SVM on mean and deviation of mel-frequency cepstral
coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import aeon  # type: ignore[import-not-found]
import numpy as np
import sklearn
from aeon.transformations.collection.convolution_based import MiniRocket  # type: ignore[import-not-found]
from PIL import Image
from scipy.fft import dct
from scipy.signal import stft
from skimage.feature import hog  # type: ignore[import-not-found]
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import RidgeClassifierCV
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from splits import answer, make_parser, read_split

Parts = dict[str, tuple[Any, np.ndarray]]
Choice = tuple[str, Any, dict[str, Any]]
"""Name, unfitted classifier, and the features of each split."""

MANY = 10_000
"""Samples on which an SVM's settings are compared; one on all of them is fitted once."""
COMPONENTS = 200
SMALL_SIDE, LARGE_SIDE = 32, 64
"""Pixels at which small images and others are described."""
CELLS = 8
"""Of a side, in which gradients are counted."""
RATE = 8000
"""Of the recordings, in steps a second."""
BANDS, COEFFICIENTS, SPEECH_WINDOW = 40, 20, 0.025


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--kind", choices=list(KINDS), required=True)
    arguments = parser.parse_args()
    parts = {name: read_split(arguments.source, name) for name in ("train", "val", "test")}
    labels = {name: part[1] for name, part in parts.items()}
    few = np.random.default_rng(arguments.seed).permutation(len(labels["train"]))[:MANY]
    scores: dict[str, float] = {}
    best: Choice | None = None
    for name, classifier, features in KINDS[arguments.kind](parts, arguments.seed):
        classifier.fit(features["train"][few], labels["train"][few])
        scores[name] = accuracy_score(labels["val"], classifier.predict(features["val"]))
        print(f"{name}: validation {scores[name]:.2%}", flush=True)
        if best is None or scores[name] > scores[best[0]]:
            best = name, classifier, features
    assert best is not None
    name, classifier, features = best
    if len(labels["train"]) > MANY:
        classifier.fit(features["train"], labels["train"])
    said, val = classifier.predict(features["test"]), classifier.predict(features["val"])
    answer(
        library=f"scikit-learn {sklearn.__version__}, aeon {aeon.__version__}",
        model=name,
        accuracy=accuracy_score(labels["test"], said),
        macro_f1=f1_score(labels["test"], said, average="macro"),
        n=len(said),
        val_accuracy=accuracy_score(labels["val"], val),
        candidates=scores,
    )


def describe(parts: Parts, make: Callable[[Any], Any]) -> dict[str, Any]:
    """Return the features of each split."""
    return {name: make(samples) for name, (samples, _) in parts.items()}


def try_images(parts: Parts, seed: int) -> Iterator[Choice]:
    first = parts["train"][0][0]
    side = SMALL_SIDE if max(first.shape[:2]) <= SMALL_SIDE else LARGE_SIDE
    pixels = describe(parts, lambda images: np.stack([resize(image, side) for image in images]))
    gradients = describe(
        {name: (images, parts[name][1]) for name, images in pixels.items()},
        lambda images: np.stack([describe_gradients(image, side // CELLS) for image in images]),
    )
    if len(pixels["train"]) > MANY:
        gradients = reduce_to(gradients, min(2 * COMPONENTS, 256), seed)
    yield from try_machines("HOG", gradients)
    components = min(COMPONENTS, len(pixels["train"]) // 2)
    flat = {name: images.reshape(len(images), -1).astype(np.float32) / 255 for name, images in pixels.items()}
    yield from try_machines("PCA", reduce_to(flat, components, seed))


def resize(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))


def describe_gradients(image: np.ndarray, cell: int) -> np.ndarray:
    features: np.ndarray = hog(
        image, pixels_per_cell=(cell, cell), cells_per_block=(2, 2), channel_axis=-1 if image.ndim == 3 else None
    )
    return features.astype(np.float32)


def reduce_to(features: dict[str, np.ndarray], components: int, seed: int) -> dict[str, np.ndarray]:
    """Return principal components, as the training samples have them."""
    reduction = PCA(components, random_state=seed).fit(features["train"])
    return {name: reduction.transform(values) for name, values in features.items()}


def try_machines(name: str, features: dict[str, np.ndarray]) -> Iterator[Choice]:
    for penalty in (1.0, 10.0, 100.0):
        yield f"{name}, SVC(rbf, C={penalty:g})", SVC(C=penalty), features
    for penalty in (0.1, 1.0):
        yield (
            f"{name}, SVC(linear, C={penalty:g})",
            make_pipeline(StandardScaler(with_std=False), SVC(C=penalty, kernel="linear")),
            features,
        )


def try_texts(parts: Parts, seed: int) -> Iterator[Choice]:
    analyzers = {
        "words": TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        "letters": TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    }
    for name, analyzer in analyzers.items():
        analyzer.fit(parts["train"][0])
        features = describe(parts, analyzer.transform)
        for penalty in (0.1, 1.0, 10.0):
            machine = LinearSVC(C=penalty, random_state=seed)
            yield f"TF-IDF of {name}, LinearSVC(C={penalty:g})", machine, features


def try_series(parts: Parts, seed: int) -> Iterator[Choice]:
    """Yield MiniRocket with ridge regression, as aeon's `MiniRocketClassifier` combines them."""
    kernels = MiniRocket(random_state=seed).fit(parts["train"][0])
    classifier = make_pipeline(StandardScaler(with_mean=False), RidgeClassifierCV(alphas=np.logspace(-3, 3, 10)))
    yield "MiniRocket, RidgeClassifierCV", classifier, describe(parts, kernels.transform)


def try_recordings(parts: Parts, seed: int) -> Iterator[Choice]:
    """Yield what is made for speech first: of equals on validation data it is kept."""
    speech = describe(parts, lambda waves: np.stack([describe_speech(wave) for wave in waves]))
    for penalty in (1.0, 10.0, 100.0):
        machine = make_pipeline(StandardScaler(), SVC(C=penalty))
        yield f"MFCC, SVC(rbf, C={penalty:g})", machine, speech
    length = int(np.percentile([len(wave) for wave in parts["train"][0]], 98))
    cut = describe(parts, lambda waves: np.stack([cut_to(wave, length) for wave in waves]))
    yield from try_series({name: (waves[:, None], parts[name][1]) for name, waves in cut.items()}, seed)


def cut_to(wave: np.ndarray, length: int) -> np.ndarray:
    """Cut a recording at its end, or add silence there."""
    return np.pad(wave[:length], (0, max(length - len(wave), 0)))


def describe_speech(wave: np.ndarray) -> np.ndarray:
    """Return mean and deviation over time of mel-frequency cepstral coefficients and of their differences."""
    size = int(SPEECH_WINDOW * RATE)
    _, _, spectra = stft(wave, RATE, nperseg=size, noverlap=size - RATE // 100, nfft=256)
    energies = np.log(mel_filters() @ np.abs(spectra) ** 2 + 1e-10)
    coefficients = dct(energies, axis=0, norm="ortho")[:COEFFICIENTS]
    changes = np.diff(coefficients, axis=1)
    return np.concatenate([values for part in (coefficients, changes) for values in (part.mean(1), part.std(1))])


def mel_filters() -> np.ndarray:
    """Return BANDS triangles over the bins of a spectrum, of equal width on the mel scale."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    bins = np.linspace(0, RATE / 2, 129)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return np.clip(np.minimum(rising, falling), 0, None)


KINDS = {"images": try_images, "texts": try_texts, "series": try_series, "recordings": try_recordings}

if __name__ == "__main__":
    main()

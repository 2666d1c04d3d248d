"""Reading, mirroring and corruption of samples of each modality for evaluation, and features for baselines.

Properties of the inputs themselves, such as whether they are tokens, are in `falconet.modalities`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from jaxtyping import Float32
from torch import Tensor

from falconet.data import DataConfig
from falconet.evaluation.corruptions import (
    SERIES_AMOUNTS,
    TEXT_AMOUNTS,
    Amounts,
    choose_amounts,
    corrupt_images,
    corrupt_series,
    corrupt_text,
)
from falconet.evaluation.features import Describe, PreparedInputs, fit_pixels, fit_spectra, fit_tfidf
from falconet.spec import ImageSpec, ModalityName


@dataclass(frozen=True)
class EvaluationAdapter:
    """Functions for evaluation on samples of a modality."""

    adapt_config: Callable[[DataConfig, Any], DataConfig]
    """Adapts the configuration by which a source is read to a model's input spec."""
    mirror: Callable[[Tensor], Tensor] | None
    """Mirrors prepared samples horizontally; None: they have no left and right."""
    list_amounts: Callable[[Any], Mapping[str, Amounts]]
    """Returns the corruptions for an input spec, each with its amounts at severities 1 to 5."""
    corrupt: Callable[[Any, str, float, Any], Any]
    """Applies a named corruption, with an amount and a random generator: to prepared samples where these have bounds,
    else to a raw one."""
    linear: str
    """Name of the linear baseline."""
    fit_features: Callable[[PreparedInputs, int], Describe]
    """Fits the linear baseline's feature extractor to training samples, given the vocabulary size of texts."""


def _read_in_range(config: DataConfig, spec: ImageSpec) -> DataConfig:
    """Return the configuration with a model's value range for images, so that none is guessed from the files."""
    return config if spec.value_range is None else dataclasses.replace(config, value_range=spec.value_range)


def _mirror_images(images: Float32[Tensor, "batch channels height width"]) -> Float32[Tensor, "batch _ height width"]:
    """Return images mirrored horizontally."""
    return images.flip(-1)


ADAPTERS: Mapping[ModalityName, EvaluationAdapter] = MappingProxyType(
    {
        "image": EvaluationAdapter(
            adapt_config=_read_in_range,
            mirror=_mirror_images,
            list_amounts=choose_amounts,
            corrupt=corrupt_images,
            linear="linear model on pixels",
            fit_features=lambda inputs, _: fit_pixels(inputs),
        ),
        "series": EvaluationAdapter(
            adapt_config=lambda config, _: config,
            mirror=None,
            list_amounts=lambda _: SERIES_AMOUNTS,
            corrupt=corrupt_series,
            linear="linear model on values and spectra",
            fit_features=lambda inputs, _: fit_spectra(inputs),
        ),
        "text": EvaluationAdapter(
            adapt_config=lambda config, _: config,
            mirror=None,
            list_amounts=lambda _: TEXT_AMOUNTS,
            corrupt=corrupt_text,
            linear="linear model on TF-IDF",
            fit_features=fit_tfidf,
        ),
    }
)

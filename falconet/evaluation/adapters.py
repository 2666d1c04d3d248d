"""How samples of each modality are read, mirrored and corrupted for evaluation, and what a baseline sees of them.

What holds of inputs themselves, such as whether they are tokens, is in `falconet.modalities`.
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
    """How a model is evaluated on samples of a modality."""

    adapt_config: Callable[[DataConfig, Any], DataConfig]
    """From how a source is read, and an input spec, to how it is read for a model."""
    mirror: Callable[[Tensor], Tensor] | None
    """From prepared samples to them with left and right exchanged; None: they have neither."""
    list_amounts: Callable[[Any], Mapping[str, Amounts]]
    """From an input spec to the corruptions that there are, each with what it is given at severities 1 to 5."""
    corrupt: Callable[[Any, str, float, Any], Any]
    """Corrupts by the corruption of a name, so much, with a generator: prepared samples where these have bounds, else
    a raw one."""
    linear: str
    """Name of the linear baseline."""
    fit_features: Callable[[PreparedInputs, int], Describe]
    """From training samples, and the vocabulary size of texts, to what the linear baseline sees of any samples."""


def _read_in_range(config: DataConfig, spec: ImageSpec) -> DataConfig:
    """Let pictures be read in the range of a model's, whatever they hold: no need to look for another one."""
    return config if spec.value_range is None else dataclasses.replace(config, value_range=spec.value_range)


def _mirror_images(images: Float32[Tensor, "batch channels height width"]) -> Float32[Tensor, "batch _ height width"]:
    """Return images with left and right exchanged."""
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

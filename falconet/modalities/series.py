"""Series: values in the order of time, in one channel or several; recordings have a rate besides."""

from __future__ import annotations

from typing import Any

from falconet.modalities.modality import Modality
from falconet.spec import SeriesSpec


def _describe_input(spec: SeriesSpec) -> str:
    """Return what a model takes, in words."""
    size = "×".join(map(str, spec.shape))
    axes = "channels × steps" if spec.bands is None else "mel bands × frames of 10 ms"
    return f"{size} ({axes}), from series of any length{f' at {spec.rate} Hz' if spec.rate else ''}"


def _describe_samples(data: Any) -> str:
    """Return the channels and the median length of a data set's series."""
    rate = f" at {data.rate:,} Hz" if data.rate else ""
    return f"series of {data.channels} channel{'s' * (data.channels > 1)} and {data.size[0]:,} steps (median){rate}"


def _name_task(spec: SeriesSpec) -> str:
    """Return the Hub's name of the task; it has none for series that are no recordings."""
    return "audio-classification" if spec.rate else "other"


SERIES = Modality(
    name="series",
    spec_type=SeriesSpec,
    plural="series",
    files="recordings",
    extensions=frozenset({".wav"}),
    has_format=True,
    example="recording.wav",
    axes=1,
    unit="steps",
    raw_unit="steps",
    has_tokens=False,
    missing_is_nan=True,
    has_statistics=True,
    bounded=False,
    describe_input=_describe_input,
    describe_samples=_describe_samples,
    name_task=_name_task,
)

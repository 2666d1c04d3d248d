"""Texts: strings, which a tokenizer turns into token IDs."""

from __future__ import annotations

from typing import Any

from falconet.modalities.modality import Modality
from falconet.spec import TextSpec


def _describe_input(spec: TextSpec) -> str:
    """Return what a model takes, in words."""
    return f"{spec.shape[0]} tokens of a vocabulary of {spec.vocab_size:,}, from texts of any length"


def _describe_samples(data: Any) -> str:
    """Return the median length of a data set's texts."""
    return f"texts of {data.size[0]:,} characters (median)"


def _name_task(spec: TextSpec) -> str:
    """Return the Hub's name of the task."""
    return "text-classification"


TEXT = Modality(
    name="text",
    spec_type=TextSpec,
    plural="texts",
    files="texts",
    extensions=frozenset({".txt"}),
    has_format=False,
    example="text.txt",
    axes=1,
    unit="tokens",
    raw_unit="characters",
    has_tokens=True,
    missing_is_nan=False,
    has_statistics=False,
    bounded=False,
    describe_input=_describe_input,
    describe_samples=_describe_samples,
    name_task=_name_task,
)

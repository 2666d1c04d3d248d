"""What a sample is: image, series or text, a file each, and MODALITIES, the one table that names them all.

A modality says what every part of Falconet must know of its samples. What only one part needs (how they are read,
drawn, exported, explained) is in that part's own `adapters`, again a table with an entry for each modality. Whoever has
a data set or a spec looks its modality up, and never asks which one it is. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from falconet.modalities.image import IMAGE
from falconet.modalities.modality import Modality as Modality
from falconet.modalities.series import SERIES
from falconet.modalities.text import TEXT
from falconet.spec import InputSpec, ModalityName

MODALITIES: Mapping[ModalityName, Modality] = MappingProxyType({"image": IMAGE, "series": SERIES, "text": TEXT})
EXTENSIONS = frozenset[str]().union(*(modality.extensions for modality in MODALITIES.values()))
"""Suffixes of files that hold one sample each."""


def modality_of(spec: InputSpec) -> Modality:
    """Return the modality of what a model takes."""
    return MODALITIES[spec.kind]

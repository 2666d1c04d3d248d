"""predict(): what a trained model answers about files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from falconet import metrics
from falconet.artifact import Artifact, load_artifact
from falconet.data.files import open_files
from falconet.errors import DataError
from falconet.evaluation.answers import predict_logits
from falconet.predictions import Predictions, check_top, find_files, rank_files


def predict(model: str | Path | Artifact, paths: str | Path | Iterable[str | Path], *, top: int = 3) -> Predictions:
    """Classify files of the kind that the model eats, and all such files below folders: one path or several.

    Files that cannot be read are skipped and listed. Raises PathError for a path that does not exist or a folder
    without such files, UsageError for what is no path and for none at all, DataError where not one file can be read,
    or an answer is no number.
    """
    check_top(top)
    artifact = model if isinstance(model, Artifact) else load_artifact(model)
    spec = artifact.config.input
    found = find_files(paths, spec.kind)
    logits, reasons = predict_logits(artifact, open_files(found.files, spec))
    if not np.isfinite(logits).all():
        raise DataError("wanted numbers, found NaN or infinity in the network's answers: its weights are of no use")
    return rank_files(found, metrics.softmax(logits), reasons, spec.labels, top)

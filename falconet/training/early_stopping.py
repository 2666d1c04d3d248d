"""Defaults of `restore` and `patience`, from the number of validation samples. Importing this does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MIN_VALIDATION = 300
"""Validation samples from which on they may choose an epoch.

On n samples, a true accuracy of 0.9 is measured within 0.9 ± 1.96 sqrt(0.9 * 0.1 / n): 3.4 points for 300, 13 for 20.
Epochs at the end of a schedule differ by less, so that the best one on few samples is the luckiest, often an early one.
"""
_PATIENCE_FRACTION, _MIN_PATIENCE = 4, 5
"""Divisor of the epochs that gives the default patience, and its minimum.

For 40 epochs it is 10. In one run each on the digits (629 validation samples) and on photographs of hand signs
(618), with the default network and schedule, a patience of 10 lost nothing of the accuracy of all 40 epochs;
one of 5 lost 1.1 points on the latter.
"""


def choose_early_stopping(val_count: int, training: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of `restore` and `patience` of TrainConfig for a number of validation samples.

    `training` holds the other settings, `epochs` among them; where it has `restore` or `patience` itself, the default
    of the other one agrees with that. Below MIN_VALIDATION samples a run keeps its last epoch, the end of the
    schedule; from there on its best one, and stops when a quarter of its epochs, and at least five, have brought none
    better.
    """
    patience, epochs = training.get("patience"), training.get("epochs")
    restore = training.get("restore") or ("best" if patience or val_count >= MIN_VALIDATION else "last")
    if restore == "last" or not isinstance(epochs, int):
        return {"restore": restore, "patience": None}
    return {"restore": restore, "patience": max(epochs // _PATIENCE_FRACTION, _MIN_PATIENCE)}

"""How a search compresses: everything but the budget. Importing it imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from falconet.data.augmentation import Augmentation
from falconet.errors import ConfigError
from falconet.schema import check_finite_fields
from falconet.training.config import TrainConfig

_Scope = Literal["layer", "global", "lamp"]
Channels = Literal["layer", "global", "none"]


@dataclass(frozen=True)
class CompressConfig:
    """How the search goes down, and what each trial is made of."""

    bits: int = 4
    """Of each weight that is left where weights go, 2 to 8."""

    epochs: int = 5
    """Of training in each trial."""

    polish: int = 0
    """Of training at the end, of the best trial once more; 0: none."""

    refinements: int = 3
    """Trials between the last fraction of weights that serves the budget and the first that does not."""

    channels: Channels = "layer"
    """Whether whole channels go where the budget does not demand it: the same fraction of each layer, the least
    important of all layers (`global`), or not."""

    multiple: int = 8
    """Layers that lose channels keep a multiple of it, where they have as many: processors compute channels in blocks
    of 8 or 16. 1: any number, for the smallest files."""

    scope: _Scope = "lamp"
    """Which weights are ranked together: those of a layer, of all by size (`global`), or by layer-adaptive scores."""

    regrow: bool = True
    """Whether weights that went may come back while a trial trains."""

    rest_bits: int = 8
    """Of biases, normalization and saved statistics, 2 to 16."""

    teach: bool = True
    """Whether the model that is compressed is the teacher of what becomes of it."""

    sensitivity: bool = True
    """Whether layers that integers of `bits` bits alone would harm get more, as measured layer by layer."""

    def __post_init__(self) -> None:
        limits = {"bits": (2, 8), "epochs": (1, 10**6), "polish": (0, 10**6), "refinements": (0, 100)}
        for name, (least, most) in {**limits, "rest_bits": (2, 16), "multiple": (1, 1024)}.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ConfigError(f"{name}: wanted {least} to {most}, found {value}")
        check_finite_fields(self)


RECOVERY = TrainConfig(
    epochs=1, learning_rate=1e-3, weight_decay=0.0, batch_size=128, restore="last", distill_alpha=0.5
)
"""How the weights that are left learn; the number of epochs is the trial's. Set by hand, not tuned."""


@dataclass(frozen=True)
class SearchConfig:
    """The complete configuration of a search: what its `config.yaml` and recipes hold."""

    augmentation: Augmentation
    compression: CompressConfig = CompressConfig()
    training: TrainConfig = RECOVERY

"""Settings of a compression search, except the budget. Importing it imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from falconet.data.augmentation import Augmentation
from falconet.errors import ConfigError
from falconet.schema import check_fields
from falconet.training.config import TrainConfig

_Scope = Literal["layer", "global", "lamp"]
Channels = Literal["layer", "global", "none"]


@dataclass(frozen=True)
class CompressConfig:
    """Settings of a compression search: how it proceeds, and what each trial does."""

    bits: int = 4
    """Bits of each remaining weight in trials that prune weights, 2 to 8."""

    epochs: int = 5
    """Epochs of training in each trial."""

    polish: int = 0
    """Epochs of further training of the best trial at the end; 0: none."""

    refinements: int = 3
    """Trials between the last fraction of weights within the budget and the first beyond it."""

    channels: Channels = "layer"
    """Whole channels that are pruned where the budget does not demand it: the same fraction of each `layer`, the least
    important of all layers (`global`), or `none`."""

    multiple: int = 8
    """Pruned layers keep a multiple of this number of channels, where they have as many: processors compute channels in
    blocks of 8 or 16. 1: any number, for the smallest files."""

    scope: _Scope = "lamp"
    """Weights ranked together: those of each `layer`, all by size (`global`), or by layer-adaptive scores (`lamp`)."""

    regrow: bool = True
    """Whether pruned weights may come back while a trial trains."""

    rest_bits: int = 8
    """Bits of biases, normalization and saved statistics, 2 to 16."""

    teach: bool = True
    """Whether the model that is compressed is the teacher in each trial's training."""

    sensitivity: bool = True
    """Whether layers that lose accuracy in integers of `bits` bits get more, as measured layer by layer."""

    def __post_init__(self) -> None:
        limits = {"bits": (2, 8), "epochs": (1, 10**6), "polish": (0, 10**6), "refinements": (0, 100)}
        for name, (least, most) in {**limits, "rest_bits": (2, 16), "multiple": (1, 1024)}.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ConfigError(f"{name}: wanted {least} to {most}, found {value}")
        check_fields(self)


RECOVERY = TrainConfig(
    epochs=1, learning_rate=1e-3, weight_decay=0.0, batch_size=128, restore="last", distill_alpha=0.5
)
"""Training of the remaining weights; the number of epochs is the trial's. Set by hand, not tuned."""


@dataclass(frozen=True)
class SearchConfig:
    """The complete configuration of a search: what its `config.yaml` and recipes hold."""

    augmentation: Augmentation
    compression: CompressConfig = CompressConfig()
    training: TrainConfig = RECOVERY

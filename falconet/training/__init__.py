"""Training: one loop and its configuration. Importing this does not import torch; `falconet.training.loop` does."""

from falconet.training.callbacks import Callback, EpochRow
from falconet.training.config import TrainConfig

__all__ = ["Callback", "EpochRow", "TrainConfig"]

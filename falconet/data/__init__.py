"""Data: any source becomes one `Dataset`. Nothing here imports torch until pixels are computed with."""

from falconet.data.dataset import Dataset, ImageArray, ImageFiles, Samples, Split, Unreadable
from falconet.data.sources import load_dataset
from falconet.data.splits import DataConfig

__all__ = [
    "DataConfig",
    "Dataset",
    "ImageArray",
    "ImageFiles",
    "Samples",
    "Split",
    "Unreadable",
    "load_dataset",
]

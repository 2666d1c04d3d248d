"""Data: any source becomes one `Dataset`. Nothing here imports torch until pixels are computed with."""

from falconet.data.dataset import Dataset, ImageArray, ImageFiles, Samples, SeriesArray, Split, Texts, Unreadable
from falconet.data.sources import load_dataset
from falconet.data.splits import Columns, DataConfig

__all__ = [
    "Columns",
    "DataConfig",
    "Dataset",
    "ImageArray",
    "ImageFiles",
    "Samples",
    "SeriesArray",
    "Split",
    "Texts",
    "Unreadable",
    "load_dataset",
]

"""Fit to a budget: the search for the smallest file of a trained model that still answers right."""

from falconet.budget.compressing import Watcher, compress
from falconet.budget.concluding import Compression
from falconet.budget.config import CompressConfig, SearchConfig
from falconet.budget.goals import Budget
from falconet.budget.search import Trial, TrialSpec

__all__ = ["Budget", "CompressConfig", "Compression", "SearchConfig", "Trial", "TrialSpec", "Watcher", "compress"]

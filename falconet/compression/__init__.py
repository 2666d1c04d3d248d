"""Compression: the search for the smallest file of a trained model that still answers right, and the steps it takes.

`steps` holds pure functions of a network, `search` decides what is tried next, `trial` carries one try out, `session`
owns the folder. Names are imported when they are first used: budgets and settings need no torch, steps no reports.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from falconet.compression.budget import Budget as Budget
    from falconet.compression.config import CompressConfig as CompressConfig
    from falconet.compression.config import SearchConfig as SearchConfig
    from falconet.compression.result import Compression as Compression
    from falconet.compression.search import Trial as Trial
    from falconet.compression.search import TrialSpec as TrialSpec
    from falconet.compression.session import Watcher as Watcher
    from falconet.compression.session import compress as compress
    from falconet.compression.steps import Chain as Chain
    from falconet.compression.steps import Cluster as Cluster
    from falconet.compression.steps import Compensate as Compensate
    from falconet.compression.steps import Constrained as Constrained
    from falconet.compression.steps import Factorize as Factorize
    from falconet.compression.steps import FoldBatchNorm as FoldBatchNorm
    from falconet.compression.steps import PruneChannels as PruneChannels
    from falconet.compression.steps import PruneWeights as PruneWeights
    from falconet.compression.steps import Quantize as Quantize
    from falconet.compression.steps import QuantizeFloats as QuantizeFloats
    from falconet.compression.steps import Sensitivity as Sensitivity
    from falconet.compression.steps import Step as Step
    from falconet.compression.steps import chain as chain
    from falconet.compression.steps import choose_bits as choose_bits
    from falconet.compression.steps import choose_sparsities as choose_sparsities
    from falconet.compression.steps import cluster as cluster
    from falconet.compression.steps import compensate as compensate
    from falconet.compression.steps import factorize as factorize
    from falconet.compression.steps import fold_batchnorm as fold_batchnorm
    from falconet.compression.steps import materialize as materialize
    from falconet.compression.steps import measure_sensitivity as measure_sensitivity
    from falconet.compression.steps import prune as prune
    from falconet.compression.steps import quantize as quantize
    from falconet.compression.steps import quantize_floats as quantize_floats

HOMES = {
    "Budget": "falconet.compression.budget",
    "CompressConfig": "falconet.compression.config",
    "Compression": "falconet.compression.result",
    "SearchConfig": "falconet.compression.config",
    "Trial": "falconet.compression.search",
    "TrialSpec": "falconet.compression.search",
    "Watcher": "falconet.compression.session",
    "compress": "falconet.compression.session",
    "Chain": "falconet.compression.steps",
    "Cluster": "falconet.compression.steps",
    "Compensate": "falconet.compression.steps",
    "Constrained": "falconet.compression.steps",
    "Factorize": "falconet.compression.steps",
    "FoldBatchNorm": "falconet.compression.steps",
    "PruneChannels": "falconet.compression.steps",
    "PruneWeights": "falconet.compression.steps",
    "Quantize": "falconet.compression.steps",
    "QuantizeFloats": "falconet.compression.steps",
    "Sensitivity": "falconet.compression.steps",
    "Step": "falconet.compression.steps",
    "chain": "falconet.compression.steps",
    "choose_bits": "falconet.compression.steps",
    "choose_sparsities": "falconet.compression.steps",
    "cluster": "falconet.compression.steps",
    "compensate": "falconet.compression.steps",
    "factorize": "falconet.compression.steps",
    "fold_batchnorm": "falconet.compression.steps",
    "materialize": "falconet.compression.steps",
    "measure_sensitivity": "falconet.compression.steps",
    "prune": "falconet.compression.steps",
    "quantize": "falconet.compression.steps",
    "quantize_floats": "falconet.compression.steps",
}

__all__ = sorted(HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'falconet.compression' has no attribute {name!r}")
    value = getattr(importlib.import_module(HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

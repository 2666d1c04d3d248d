"""Steps that make a trained network smaller, and what keeps it so while it is trained on."""

from falconet.compression.compensation import Compensate, compensate
from falconet.compression.constraints import Constrained, materialize
from falconet.compression.pruning import PruneWeights
from falconet.compression.sensitivity import Sensitivity, choose_bits, choose_sparsities, measure_sensitivity
from falconet.compression.steps import (
    Chain,
    Cluster,
    Quantize,
    QuantizeFloats,
    Step,
    chain,
    cluster,
    prune,
    quantize,
    shorten,
)
from falconet.compression.structure import Factorize, FoldBatchNorm, PruneChannels, factorize, fold_batchnorm

__all__ = [
    "Chain",
    "Cluster",
    "Compensate",
    "Constrained",
    "Factorize",
    "FoldBatchNorm",
    "PruneChannels",
    "PruneWeights",
    "Quantize",
    "QuantizeFloats",
    "Sensitivity",
    "Step",
    "chain",
    "choose_bits",
    "choose_sparsities",
    "cluster",
    "compensate",
    "factorize",
    "fold_batchnorm",
    "materialize",
    "measure_sensitivity",
    "prune",
    "quantize",
    "shorten",
]

"""Steps that make a trained network smaller, and what keeps it so while something else trains it.

A step is a frozen value that is called: it takes a module, returns another one, mutates nothing and trains nothing.
"""

from falconet.compression.steps.channels import PruneChannels
from falconet.compression.steps.clustering import Cluster, cluster
from falconet.compression.steps.compensation import Compensate, compensate
from falconet.compression.steps.constraints import Constrained, materialize
from falconet.compression.steps.factorization import Factorize, factorize
from falconet.compression.steps.folding import FoldBatchNorm, fold_batchnorm
from falconet.compression.steps.pruning import PruneWeights, prune
from falconet.compression.steps.quantization import Quantize, QuantizeFloats, quantize, quantize_floats
from falconet.compression.steps.sensitivity import Sensitivity, choose_bits, choose_sparsities, measure_sensitivity
from falconet.compression.steps.step import Chain, Step, chain

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
    "quantize_floats",
]

"""Numbers by which the search for a small file is tuned. Importing it imports no torch.

No user sets them; what users set are `Budget`, `CompressConfig` and `TrainConfig`. Constants of a single step, such as
those of the pruning schedule, stand in the step's own file.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SearchConstants:
    """Tuned constants of the search, each with what it does and where its value comes from."""

    default_drop: float = 0.5
    """Points of accuracy that may be lost where neither a drop nor a size is asked for. A note says so where a single
    validation sample is worth more. Source: the goal of the rows in `benchmarks/compression.py`; not tuned."""

    drop_tolerance: float = 1e-9
    """Points by which a drop may pass its limit, for the rounding of floats. Source: set by hand, not tuned."""

    first_bits: int = 8
    """Bits of each weight in the first trial, which does not train. Source: the most that `quantize` takes, and nearly
    free: 8 bits everywhere changed 0.8 % of ResNet-20's predictions on CIFAR-10 (docs/compressing.md)."""

    step_down: float = 0.5
    """Fraction of the weights, or of the MACs, that a trial keeps of those of the trial before, where a drop is the
    limit. Source: set by hand, not tuned."""

    least_density: float = 2.0**-14
    """Fraction of the weights below which no trial goes, so that the search ends. Source: set by hand, not tuned."""

    aimed_size: float = 0.96
    """Fraction of the wanted size that is aimed at, since the estimate of a size errs. Source: set by hand, not
    tuned."""

    filled_size: float = 0.9
    """Fraction of the wanted size from which on a file fills it, so that the search ends. Source: set by hand; it
    was 0.94 and 0.92 before, and no experiment is recorded for any of them."""

    polish_size: float = 0.9
    """Fraction of the wanted size that a network may take before it is trained longer, since weights spread over more
    values as they learn. Source: files were seen to grow by a fiftieth, the smallest ones by up to a thirteenth, which
    the 0.975 of before did not allow for; those searches are not recorded."""

    bits_per_grid_bit: float = 0.82
    """Bits that a coded weight takes for each bit of its grid: most values are small, which entropy coding exploits.
    Source: measured when the search was written; on which networks is not recorded."""

    near_size: float = 4.0
    """Size of a network in 8-bit integers, as a multiple of the wanted one, up to which its channels stay: so little is
    left to remove that single weights suffice. Source: set by hand, not tuned."""

    channel_drop_fraction: float = 0.5
    """Fraction of the allowed drop that removing channels may cost before single weights go instead. Source: set by
    hand, not tuned."""

    channel_drop: float = 0.3
    """Points of accuracy that removing channels may cost where only the size is limited. Source: set by hand, not
    tuned."""

    largest_step: float = 0.25
    """Least fraction of a trial's weights that the next one keeps where a size is the limit: a larger step is hard to
    learn. Source: set by hand, not tuned."""

    smallest_step: float = 0.9
    """Greatest fraction of a trial's weights that the next one keeps, so that each makes progress. Source: set by hand,
    not tuned."""

    bisections: int = 30
    """Halvings of an interval of densities, which leave 1e-9 of it. Source: set by hand, not tuned."""

    interpolation_margin: float = 0.1
    """Least distance of a trial from either of two that it lies between, as a fraction of theirs. Source: set by hand,
    not tuned."""

    sensitivity_sparsities: tuple[float, ...] = (0.5, 0.8, 0.9, 0.95)
    """Fractions of zeros that are tried in each layer alone, for the picture. Source: set by hand, not tuned."""

    sensitivity_bits: tuple[int, ...] = (8, 6, 4, 3, 2)
    """Bits that are tried in each layer alone. Source: set by hand, not tuned."""

    sensitivity_samples: int = 1000
    """Validation samples on which single layers are evaluated, or a few more. Source: set by hand, not tuned."""

    layer_tolerance: float = 0.01
    """Accuracy (0 to 1) that the integers of one layer alone may cost before any training; a layer that costs more gets
    more bits. Source: set by hand, not tuned."""

    least_macs: float = 0.02
    """Fraction of the dense network's MACs below which no channels are removed. Source: set by hand, not tuned."""

    latency_margin: float = 0.95
    """Fraction of the wanted milliseconds that a network may take when it is chosen, since another measurement will
    differ. Source: set by hand, not tuned."""

    largest_latency_step: float = 0.4
    """Least fraction of the MACs that the next network on the way to the wanted milliseconds keeps of the one before,
    since milliseconds do not fall in proportion to MACs. Source: set by hand, not tuned."""

    smallest_latency_step: float = 0.9
    """Greatest fraction of the MACs that the next network keeps where milliseconds are the limit. Source: set by hand,
    not tuned."""

    validation_batch: int = 512
    """Batch size for validation samples. Source: set by hand, not tuned; changes no result but speed."""


CONSTANTS = SearchConstants()

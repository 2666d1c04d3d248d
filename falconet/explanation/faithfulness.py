"""Faithfulness of explanations: deletion and insertion curves, and the randomization check.

Deletion removes the most relevant positions first, insertion adds them first; a faithful explanation makes the class's
probability fall fast and rise fast (Petsiuk, Das, Saenko: RISE, BMVC 2018, section 4.3). Areas are over the fraction of
positions, so that they lie in 0 to 1 for inputs of any size. `falconet.explanation.positions` defines removal.

The randomization check draws a network's weights anew: an explanation that stays similar does not depend on what it
learned (Adebayo et al.: Sanity checks for saliency maps, NeurIPS 2018, section 3.1). All layers are drawn at once, the
end of that paper's cascade, and rankings compared by Spearman's correlation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from falconet.artifact import Artifact, build_model
from falconet.explanation.methods import BATCH, Method, Relevance, Targets, explain_batch
from falconet.explanation.positions import Inputs, flatten_relevance, mark_present, remove

POINTS = 50
"""Steps of a curve, at most."""
_DRAWS = 3
"""Networks with random weights over which correlations are averaged."""


@dataclass(frozen=True)
class _Curve:
    """A class's probability while positions are removed, or added, in order of relevance."""

    fractions: tuple[float, ...]
    """Fractions of positions that are removed or added, from 0 to 1."""
    probabilities: tuple[float, ...]

    @property
    def area(self) -> float:
        """Area under the curve, by trapezoids."""
        return float(np.trapezoid(self.probabilities, self.fractions))


@dataclass(frozen=True)
class Faithfulness:
    """The faithfulness of an explanation of one input: its deletion and insertion curves."""

    deletion: _Curve
    insertion: _Curve

    @property
    def gain(self) -> float:
        """Area of insertion minus area of deletion: 0 on average for a random order, and at most 1."""
        return self.insertion.area - self.deletion.area


@dataclass(frozen=True)
class Score:
    """The faithfulness of a method: means over its explanations."""

    method: str
    n: int
    """Number of explanations."""
    deletion_auc: float
    insertion_auc: float
    randomization: float
    trust: float = field(init=False)
    """The gain, minus the part that is there without training: gain x (1 - max(randomization, 0)).

    A gain below 0 is not reduced: an explanation that is worse than none does not get better by that.
    """

    def __post_init__(self) -> None:
        fraction = 1 - max(self.randomization, 0.0) if self.gain > 0 else 1.0
        object.__setattr__(self, "trust", self.gain * fraction)

    @property
    def gain(self) -> float:
        """Area of insertion minus area of deletion, averaged."""
        return self.insertion_auc - self.deletion_auc

    def beats(self, floor: Score) -> bool:
        """Whether the method's gain is higher than that of `floor`, a random order, and positive."""
        return self.gain > max(floor.gain, 0.0)


def measure_faithfulness(
    model: nn.Module,
    sample: Inputs,
    target: int,
    relevance: Float[Tensor, "1 *positions"],
    temperature: float = 1.0,
    steps: int = POINTS,
) -> Faithfulness:
    """Return both curves of one input, a batch of one, in at most `steps` steps; `temperature` divides logits."""
    brought = order_positions(sample, flatten_relevance(relevance, sample)[0], steps)
    fractions = np.linspace(0, 1, len(brought))
    everything = sample.expand(len(brought), *sample.shape[1:])
    present = mark_present(sample)
    curves = []
    for removed in (brought, present & ~brought):
        probabilities = _answer(model, remove(everything, removed), target, temperature)
        curves.append(_Curve(tuple(fractions.tolist()), tuple(probabilities.tolist())))
    return Faithfulness(*curves)


def order_positions(
    sample: Inputs, relevance: Float[Tensor, " positions"], steps: int = POINTS
) -> Bool[Tensor, "points positions"]:
    """Return growing sets of positions with content, the most relevant first, from none to all in equal steps.

    Ties are broken at random, since an order from the first to the last position would be evidence of its own.
    """
    places = mark_present(sample)[0].nonzero()[:, 0]
    places = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(0))]
    places = places[relevance[places].argsort(descending=True, stable=True)]
    points = min(steps, len(places)) + 1
    sets = torch.zeros(points, len(relevance), dtype=torch.bool)
    for row, count in zip(sets, np.linspace(0, len(places), points).round().astype(int).tolist(), strict=True):
        row[places[:count]] = True
    return sets


@torch.inference_mode()
def _answer(model: nn.Module, inputs: Inputs, target: int, temperature: float) -> Float[Tensor, " batch"]:
    """Return a class's probability for each input."""
    parts = torch.split(inputs, BATCH)
    return torch.cat([(model(part) / temperature).softmax(dim=1)[:, target] for part in parts])


def draw_networks(artifact: Artifact) -> list[nn.Module]:
    """Return networks of the artifact's structure whose weights were never trained; the same ones each time."""
    networks = []
    for seed in range(_DRAWS):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks.append(build_model(artifact.config).eval().to(memory_format=torch.channels_last))
    return networks


def measure_randomization(
    networks: list[nn.Module], method: Method, inputs: Inputs, targets: Targets, relevance: Relevance
) -> list[float]:
    """Return each input's rank correlation of its relevance with that for networks with random weights, from -1 to 1.

    It is the mean of Spearman's correlation over `networks`; the nearer to 0, the more the explanation depends on what
    was learned.
    """
    kept = mark_present(inputs).numpy()
    trained = flatten_relevance(relevance, inputs).numpy()
    others = [
        flatten_relevance(explain_batch(method, network, inputs, targets), inputs).numpy() for network in networks
    ]
    return [
        float(np.mean([correlate_ranks(trained[row][kept[row]], other[row][kept[row]]) for other in others]))
        for row in range(len(inputs))
    ]


def correlate_ranks(first: Float[np.ndarray, " values"], second: Float[np.ndarray, " values"]) -> float:
    """Return Spearman's rank correlation, with mean ranks for ties; 0 where all values of one are equal."""
    ranks = [_rank(values) for values in (first, second)]
    centered = [values - values.mean() for values in ranks] if len(first) else ranks
    norm = float(np.sqrt(np.prod([np.square(values).sum() for values in centered])))
    return float(centered[0] @ centered[1]) / norm if norm else 0.0


def _rank(values: Float[np.ndarray, " values"]) -> Float[np.ndarray, " values"]:
    """Return the rank of each value in ascending order, with mean ranks for ties."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: Float[np.ndarray, " values"] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return means

"""Is an explanation true? Deletion and insertion curves, and what is left of it without what the network learned.

Deletion takes the positions that matter most away first, insertion brings them first; a true explanation makes the
class's probability fall fast and rise fast (Petsiuk, Das, Saenko: RISE, BMVC 2018, section 4.3). Areas are over the
fraction of positions, so that they lie in 0 to 1 for inputs of any size. What removing means is in
`falconet.explanation.positions`.

The randomization check draws a network's weights anew: an explanation that stays alike does not tell what the network
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
"""Networks with weights drawn anew, of whose correlations the mean is taken."""


@dataclass(frozen=True)
class _Curve:
    """A class's probability while positions are removed, or brought, in order of relevance."""

    fractions: tuple[float, ...]
    """Of positions that were, from 0 to 1."""
    probabilities: tuple[float, ...]

    @property
    def area(self) -> float:
        """Below the curve, by trapezoids."""
        return float(np.trapezoid(self.probabilities, self.fractions))


@dataclass(frozen=True)
class Faithfulness:
    """How the class's probability follows an explanation of one input."""

    deletion: _Curve
    insertion: _Curve

    @property
    def gain(self) -> float:
        """Insertion's area without deletion's: 0 for an order that says nothing, on average, and at most 1."""
        return self.insertion.area - self.deletion.area


@dataclass(frozen=True)
class Score:
    """How far a method may be trusted on the explained samples: means over its items."""

    method: str
    n: int
    """Explanations."""
    deletion_auc: float
    insertion_auc: float
    randomization: float
    trust: float = field(init=False)
    """The gain, less the fraction of the ranking that is there without training: gain x (1 - max(randomization, 0)).

    A gain below 0 stays whole: nothing makes an explanation better that is worse than none.
    """

    def __post_init__(self) -> None:
        fraction = 1 - max(self.randomization, 0.0) if self.gain > 0 else 1.0
        object.__setattr__(self, "trust", self.gain * fraction)

    @property
    def gain(self) -> float:
        """Insertion's area without deletion's."""
        return self.insertion_auc - self.deletion_auc

    def beats(self, floor: Score) -> bool:
        """Whether the probability follows the method's order more than a random one, and not backwards."""
        return self.gain > max(floor.gain, 0.0)


def measure_faithfulness(
    model: nn.Module,
    sample: Inputs,
    target: int,
    relevance: Float[Tensor, "1 *positions"],
    temperature: float = 1.0,
    steps: int = POINTS,
) -> Faithfulness:
    """Return both curves of one input, a batch of one, in up to so many steps; the `temperature` divides logits."""
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
    """Return growing sets of positions with content, the most relevant first: none, then equal parts more, then all.

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
    """Return for each input how alike an explanation ranks positions when the weights are random, from -1 to 1.

    The mean of Spearman's correlations over `networks`; the lower its size, the more the explanation owes to what was
    learned.
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
    """Return Spearman's rank correlation, equal values having their mean rank; 0 where one has no order at all."""
    ranks = [_rank(values) for values in (first, second)]
    centered = [values - values.mean() for values in ranks] if len(first) else ranks
    norm = float(np.sqrt(np.prod([np.square(values).sum() for values in centered])))
    return float(centered[0] @ centered[1]) / norm if norm else 0.0


def _rank(values: Float[np.ndarray, " values"]) -> Float[np.ndarray, " values"]:
    """Return the place of each value in ascending order; equal values have the mean of their places."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: Float[np.ndarray, " values"] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return means
